//! (stand-in until merged)
/// How a folder is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Read-only.
    Use,
    /// Filled by copies.
    Backup,
    /// Filled by moves.
    Move,
}
impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Use => "use",
            Mode::Backup => "backup",
            Mode::Move => "move",
        })
    }
}
