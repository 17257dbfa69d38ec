//! Splits a command into words, as a POSIX shell does, with nothing replaced.

/// A command with a quote that has no end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot split {text:?} into words: a quote has no end")]
pub struct OpenQuote {
    text: String,
}

/// The words of a command.
///
/// # Errors
///
/// A quote has no end.
pub fn split(text: &str) -> Result<Vec<String>, OpenQuote> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    let open = || OpenQuote {
        text: text.to_owned(),
    };
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(end), letter) if letter == end => quote = None,
            (None, '\\') => {
                let next = letters.next().ok_or_else(open)?;
                word.get_or_insert_default().push(next);
            }
            (Some('"'), '\\') => {
                let next = letters.next().ok_or_else(open)?;
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(open());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (text, expected) in [
            ("", &[][..]),
            (" a  b\n", &["a", "b"]),
            ("python -m 'x y'", &["python", "-m", "x y"]),
            ("a'b'\"c\"d ''", &["abcd", ""]),
            (r#""a\"\n" b\ c"#, &[r#"a"\n"#, "b c"]),
            ("$(id) `x`;", &["$(id)", "`x`;"]),
        ] {
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        for text in ["'a", "\"a", "a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
