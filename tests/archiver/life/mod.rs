//! What a daemon that archives goes through: it is killed, its folders go away, and jobs are left alone or change.

mod folders;
mod killed;
mod left_alone;
mod scanning;
