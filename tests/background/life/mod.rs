//! What a daemon that archives goes through: it is killed, its folders go away or hang, and jobs are left alone or change.

mod backups;
mod folders;
mod hanging;
mod killed;
mod left_alone;
mod requests;
mod run_again;
mod scanning;
