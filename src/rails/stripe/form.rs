//! Forms as Stripe reads them: `application/x-www-form-urlencoded`, with brackets for what is nested.

use std::fmt::Write as _;

/// The fields of one question, in their order.
#[derive(Clone, Default)]
pub(super) struct Form(String);

impl Form {
    /// No fields.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds `value` under `name`, which may hold brackets: `line_items[0][quantity]`.
    pub(super) fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        escape(&mut self.0, name);
        self.0.push('=');
        escape(&mut self.0, value.as_ref());
        self
    }

    /// The same, if there is a value.
    pub(super) fn with_some(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Without its values: a token may be among them.
impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Form({} bytes)", self.0.len())
    }
}

/// The beginning of `text`, of at most `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn escape(into: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                into.push(byte.into());
            }
            b' ' => into.push('+'),
            _ => {
                let _ = write!(into, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_is_escaped() {
        let form = Form::new()
            .with("a[b]", "x y&z=1+é")
            .with_some("no", None::<&str>)
            .with("c", "");
        assert_eq!(form.as_str(), "a%5Bb%5D=x+y%26z%3D1%2B%C3%A9&c=");
        assert!(!format!("{form:?}").contains('z'));
        assert_eq!((cut("aé", 2), cut("aé", 3), cut("a", 9)), ("a", "aé", "a"));
    }
}
