//! Patterns of names: `*` stands for any run of characters, also an empty one and also `/`; every other character stands
//! for itself.

use std::fmt;

use crate::error::{Error, Result};

/// A name in which each `*` matches any run of characters, `/` included.
///
/// `[`, `?` and `{` are ordinary characters: they occur in names and URIs. `private://*` matches `private://a/b?c` and
/// not `privatex://a`.
#[derive(Clone)]
pub struct CapabilityPattern {
    text: String,
    glob: Option<glob::Pattern>,
}

impl CapabilityPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an empty pattern and for control characters: neither can match
    /// a name.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::config(
                "a name must not be empty: it could match nothing",
            ));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::config(format!(
                "name {text:?} must not hold control characters"
            )));
        }
        let glob = text.contains('*').then(|| compile(text)).transpose()?;
        Ok(Self {
            text: text.to_owned(),
            glob,
        })
    }

    /// The pattern that stands for `name` alone; `None` if the name holds a `*`, which a pattern cannot quote.
    #[must_use]
    pub fn literal(name: &str) -> Option<Self> {
        if name.contains('*') {
            return None;
        }
        Self::new(name).ok()
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a plain name without `*`.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.glob.is_none()
    }

    /// What stands before the first `*`.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        self.text.split('*').next().unwrap_or_default()
    }

    /// Whether `name` is one that this pattern stands for.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.glob {
            Some(glob) => glob.matches(name),
            None => self.text == name,
        }
    }

    /// Whether some name matches both patterns.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b): (Vec<char>, Vec<char>) =
            (self.text.chars().collect(), other.text.chars().collect());
        // reachable[j]: some text is matched by the part of `a` read so far and by `b[..j]`.
        let mut reachable = vec![false; b.len() + 1];
        reachable[0] = true;
        for j in 0..b.len() {
            reachable[j + 1] = reachable[j] && b[j] == '*';
        }
        for &x in &a {
            let mut next = vec![false; b.len() + 1];
            next[0] = reachable[0] && x == '*';
            for j in 0..b.len() {
                next[j + 1] = match (x, b[j]) {
                    ('*', _) => reachable[j + 1] || next[j],
                    (_, '*') => next[j] || reachable[j + 1],
                    (x, y) => x == y && reachable[j],
                };
            }
            reachable = next;
        }
        reachable[b.len()]
    }
}

/// Escapes everything but `*`, and joins runs of `*`, which glob syntax would read as something else.
fn compile(text: &str) -> Result<glob::Pattern> {
    let mut escaped = String::with_capacity(text.len() + 8);
    for (i, literal) in text.split('*').enumerate() {
        if i > 0 && !escaped.ends_with('*') {
            escaped.push('*');
        }
        escaped.push_str(&glob::Pattern::escape(literal));
    }
    glob::Pattern::new(&escaped).map_err(|source| {
        Error::config(format!("pattern {text:?} cannot be used")).with_source(source)
    })
}

impl fmt::Debug for CapabilityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapabilityPattern({:?})", self.text)
    }
}

impl PartialEq for CapabilityPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CapabilityPattern {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> CapabilityPattern {
        CapabilityPattern::new(text).unwrap()
    }

    #[test]
    fn a_star_crosses_slashes_and_everything_else_is_itself() {
        assert!(pattern("private://*").matches("private://a/b?c"));
        assert!(pattern("private://*").matches("private://"));
        assert!(!pattern("private://*").matches("privatex://a"));
        assert!(pattern("file[1].txt").matches("file[1].txt"));
        assert!(!pattern("file[1].txt").matches("file1.txt"));
        assert!(!pattern("a?c*").matches("abc"));
        assert!(pattern("a?c*").matches("a?cd"));
        assert!(pattern("a**b").matches("axyb"));
        assert!(pattern("*[*").matches("x[y"));
    }

    #[test]
    fn what_can_match_nothing_is_refused() {
        assert!(CapabilityPattern::new("").is_err());
        assert!(CapabilityPattern::new("a\u{0}").is_err());
    }

    #[test]
    fn overlap_is_decided_not_guessed() {
        for (a, b, expected) in [
            ("a*b", "a*c", false),
            ("a*b", "a*bb", true),
            ("*", "x", true),
            ("a*", "b*", false),
            ("a*c", "ab*", true),
            ("abc", "abc", true),
            ("*x*", "y", false),
        ] {
            assert_eq!(pattern(a).overlaps(&pattern(b)), expected, "{a} {b}");
            assert_eq!(pattern(b).overlaps(&pattern(a)), expected, "{b} {a}");
        }
    }

    proptest! {
        #[test]
        fn patterns_that_match_one_name_overlap(a in "[ab*]{1,6}", b in "[ab*]{1,6}", name in "[ab]{0,6}") {
            if pattern(&a).matches(&name) && pattern(&b).matches(&name) {
                prop_assert!(pattern(&a).overlaps(&pattern(&b)));
            }
        }
    }
}
