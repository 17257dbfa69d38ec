//! Triggers: the patterns of Python's `fnmatch.fnmatch`.
//!
//! Not shell globs: `*` and `?` match every character, `/` and newline among them; `[!x]` negates and `[^x]` does
//! not; there is no escape character and there are no braces. A `[` without its `]` is itself. What stands between
//! brackets is read as `fnmatch.translate` does, ranges the wrong way round and hyphens in odd places included.

/// A pattern that experiment ids are matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// `*`
    Star,
    One(One),
}

/// What matches one character.
#[derive(Debug, Clone, PartialEq, Eq)]
enum One {
    Any,
    Never,
    Char(char),
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl One {
    fn matches(&self, c: char) -> bool {
        match self {
            One::Any => true,
            One::Never => false,
            One::Char(own) => *own == c,
            One::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

impl Trigger {
    /// Reads a pattern; every string is one.
    #[must_use]
    pub fn new(pattern: &str) -> Trigger {
        let pattern: Vec<char> = pattern.chars().collect();
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(c) = pattern.get(at) {
            at += 1;
            pieces.push(match c {
                '*' if pieces.last() == Some(&Piece::Star) => continue,
                '*' => Piece::Star,
                '?' => Piece::One(One::Any),
                '[' => match closing(&pattern, at) {
                    Some(end) => {
                        let set = set(pattern.get(at..end).unwrap_or_default());
                        at = end + 1;
                        Piece::One(set)
                    }
                    None => Piece::One(One::Char('[')),
                },
                other => Piece::One(One::Char(*other)),
            });
        }
        Trigger { pieces }
    }

    /// Whether the whole name matches. Takes time in proportion to the pattern's length times the name's, at worst.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut piece, mut at) = (0, 0);
        // Where to go on if what follows the last star does not fit: only the last star need ever give way.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (self.pieces.get(piece), name.get(at)) {
                (Some(Piece::Star), _) => {
                    piece += 1;
                    retry = Some((piece, at));
                    continue;
                }
                (Some(Piece::One(one)), Some(c)) if one.matches(*c) => {
                    piece += 1;
                    at += 1;
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            match retry {
                Some((after_star, from)) if from < name.len() => {
                    retry = Some((after_star, from + 1));
                    piece = after_star;
                    at = from + 1;
                }
                _ => return false,
            }
        }
    }
}

/// Where the `]` is that closes a set whose `[` is just before `from`. A `]` that comes first is a member.
fn closing(pattern: &[char], from: usize) -> Option<usize> {
    let mut at = from;
    if pattern.get(at) == Some(&'!') {
        at += 1;
    }
    if pattern.get(at) == Some(&']') {
        at += 1;
    }
    (at..pattern.len()).find(|i| pattern.get(*i) == Some(&']'))
}

/// What stands between brackets: the second half of `fnmatch.translate`'s treatment of `[`.
fn set(stuff: &[char]) -> One {
    let chunks = chunks(stuff);
    let first = chunks.first().and_then(|chunk| chunk.first()).copied();
    if chunks.iter().all(Vec::is_empty) {
        return One::Never;
    }
    let negated = first == Some('!');
    let mut ranges = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let skip = usize::from(index == 0 && negated);
        ranges.extend(chunk.iter().skip(skip).map(|c| (*c, *c)));
        // A hyphen between two chunks makes a range of their neighbours.
        if let (Some(low), Some(high)) = (
            chunk.get(skip..).and_then(<[char]>::last),
            chunks.get(index + 1).and_then(|next| next.first()),
        ) {
            ranges.push((*low, *high));
        }
    }
    if negated && ranges.is_empty() {
        One::Any
    } else {
        One::Set { negated, ranges }
    }
}

/// The set cut at the hyphens that stand for a range; ranges the wrong way round are taken out with both their
/// ends, as Python does since 3.11.
fn chunks(stuff: &[char]) -> Vec<Vec<char>> {
    let mut chunks: Vec<Vec<char>> = Vec::new();
    let mut start = 0;
    let mut from = if stuff.first() == Some(&'!') { 2 } else { 1 };
    while let Some(hyphen) = (from..stuff.len()).find(|i| stuff.get(*i) == Some(&'-')) {
        chunks.push(stuff.get(start..hyphen).unwrap_or_default().to_vec());
        start = hyphen + 1;
        from = hyphen + 3;
    }
    match stuff.get(start..) {
        Some(rest) if !rest.is_empty() => chunks.push(rest.to_vec()),
        // A hyphen at the end is itself.
        _ => {
            if let Some(last) = chunks.last_mut() {
                last.push('-');
            }
        }
    }
    for k in (1..chunks.len()).rev() {
        let backwards = match (
            chunks.get(k - 1).and_then(|c| c.last()),
            chunks.get(k).and_then(|c| c.first()),
        ) {
            (Some(low), Some(high)) => low > high,
            _ => false,
        };
        if backwards {
            let after = chunks.remove(k);
            if let Some(before) = chunks.get_mut(k - 1) {
                before.pop();
                before.extend(after.into_iter().skip(1));
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::Trigger;

    fn matches(pattern: &str, name: &str) -> bool {
        Trigger::new(pattern).matches(name)
    }

    #[test]
    fn stars_and_questions_match_every_character() {
        assert!(matches("nlp-*", "nlp-a/b\nc"));
        assert!(matches("a?c", "a/c") && matches("a?c", "a\nc") && matches("a?c", "aéc"));
        assert!(matches("*", "") && !matches("?", ""));
        assert!(!matches("nlp-*", "xnlp-1") && !matches("nlp", "nlp\n"));
    }

    #[test]
    fn brackets_are_python_s() {
        assert!(matches("[!a]", "b") && !matches("[!a]", "a"));
        assert!(matches("[^a]", "^") && matches("[^a]", "a") && !matches("[^a]", "b"));
        assert!(matches("[]]", "]") && matches("[!]]", "x") && !matches("[!]]", "]"));
        assert!(
            matches("[", "[") && matches("[a", "[a") && matches("[!", "[!") && matches("[]", "[]")
        );
        assert!(!matches("[b-a]", "a") && !matches("[b-a]", "b") && matches("[!b-a]", "z"));
        assert!(matches("[a-c-e]", "b") && matches("[a-c-e]", "-") && !matches("[a-c-e]", "d"));
        assert!(matches(r"[\]", r"\") && matches(r"\*", r"\x") && !matches(r"\*", "*"));
        assert!(!matches("{a,b}", "a") && matches("{a,b}", "{a,b}"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(60) + "b";
        assert!(!matches(&pattern, &"a".repeat(5000)));
    }
}
