//! Quotes a path for a shell, in commands that messages suggest: a person pastes them.

use std::path::Path;

/// Returns the path as one word of a shell.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match !path.is_empty() && path.chars().all(plain) {
        true => path.into_owned(),
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_path_as_it_is() {
        for (path, word) in [
            ("/slow/nlp", "/slow/nlp"),
            ("/it's $(date)", "'/it'\\''s $(date)'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
