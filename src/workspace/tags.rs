//! The tags of a job.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Tags in the order of their names, in as little memory as they need: a workspace may have a hundred thousand jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tags(Box<[(Box<str>, Value)]>);

impl Tags {
    /// Returns the value of a tag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(name));
        at.ok()
            .and_then(|at| self.0.get(at))
            .map(|(_, value)| value)
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

/// Of several values of a name, the last is valid.
impl FromIterator<(Box<str>, Value)> for Tags {
    fn from_iter<T: IntoIterator<Item = (Box<str>, Value)>>(tags: T) -> Tags {
        let sorted: BTreeMap<Box<str>, Value> = tags.into_iter().collect();
        Tags(sorted.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tags, D::Error> {
        let sorted = BTreeMap::<Box<str>, Value>::deserialize(deserializer)?;
        Ok(Tags(sorted.into_iter().collect()))
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_by_name_and_written_in_order() {
        let text = r#"{"model":"bm25","lr":0.1,"model":"splade"}"#;
        let tags: Tags = serde_json::from_str(text).unwrap();
        assert_eq!(tags.get("model"), Some(&Value::from("splade")));
        assert_eq!(tags.get("mode"), None);
        let written = serde_json::to_string(&tags).unwrap();
        assert_eq!(written, r#"{"lr":0.1,"model":"splade"}"#);
    }
}
