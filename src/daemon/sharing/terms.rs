//! How a mount was made, as names and values that another program can compare with what it asks for.

use serde::{Deserialize, Serialize};

/// Names and values, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms(Vec<(String, String)>);

impl Terms {
    /// Adds a value.
    pub fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string()));
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(own, _)| own == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// What differs between a mount that was made so and one that is asked for.
    #[must_use]
    pub fn differences(&self, asked: &Terms) -> Vec<String> {
        let unknown = "not known";
        let of_mount = self.0.iter().map(|(name, value)| {
            let other = asked.value(name).unwrap_or(unknown);
            (name, value.as_str(), other)
        });
        let only_asked = asked
            .0
            .iter()
            .filter(|(name, _)| self.value(name).is_none())
            .map(|(name, value)| (name, unknown, value.as_str()));
        of_mount
            .chain(only_asked)
            .filter(|(_, mounted, asked)| mounted != asked)
            .map(|(name, mounted, asked)| format!("{name} is {mounted}, asked for is {asked}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named_with_both_values() {
        let mut mounted = Terms::default();
        mounted.add("read-only", false);
        mounted.add("settle", "2s");
        assert_eq!(mounted.differences(&mounted), [""; 0]);
        let mut asked = Terms::default();
        asked.add("read-only", true);
        asked.add("bandwidth", 7);
        let expected = [
            "read-only is false, asked for is true",
            "settle is 2s, asked for is not known",
            "bandwidth is not known, asked for is 7",
        ];
        assert_eq!(mounted.differences(&asked), expected);
    }
}
