//! Newline-delimited text from a pipe, with a bound on every line.
//!
//! Both MCP over stdio and a child's stderr are lines. Neither side of a pipe may make this process hold more of one line
//! than it agreed to.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines of at most `most` bytes.
#[derive(Debug)]
pub(crate) struct BoundedLines<R> {
    reader: BufReader<R>,
    most: usize,
    line: Vec<u8>,
    skipping: bool,
}

/// One line, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The bytes, or the first of them.
    pub(crate) bytes: Vec<u8>,
    /// The line is longer than the bound; the rest of it is passed over.
    pub(crate) cut: bool,
}

impl<R: AsyncRead + Unpin> BoundedLines<R> {
    pub(crate) fn new(reader: R, most: usize) -> Self {
        Self {
            reader: BufReader::new(reader),
            most,
            line: Vec::new(),
            skipping: false,
        }
    }

    /// The next line that is not empty; `None` at the end. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then_some(Line {
                    bytes: rest,
                    cut: false,
                }));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let used = part.len() + usize::from(end.is_some());
            let mut cut = false;
            if !self.skipping {
                let room = self.most.saturating_sub(self.line.len());
                cut = part.len() > room;
                self.line.extend_from_slice(&part[..part.len().min(room)]);
            }
            let was_skipping = self.skipping;
            self.skipping = end.is_none() && (self.skipping || cut);
            self.reader.consume(used);
            if cut || (end.is_some() && !was_skipping) {
                let mut bytes = std::mem::take(&mut self.line);
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
                if !bytes.is_empty() {
                    return Ok(Some(Line { bytes, cut }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, most: usize) -> Vec<(String, bool)> {
        let mut lines = BoundedLines::new(text.as_bytes(), most);
        let mut out = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            out.push((String::from_utf8(line.bytes).unwrap(), line.cut));
        }
        out
    }

    #[tokio::test]
    async fn lines_are_cut_at_the_bound_and_the_rest_is_passed_over() {
        let expected = [("abc", false), ("defg", true), ("hi", false), ("j", false)];
        let expected: Vec<(String, bool)> = expected
            .iter()
            .map(|(text, cut)| ((*text).to_owned(), *cut))
            .collect();
        assert_eq!(read("abc\n\r\n\ndefgXYZ\nhi\r\nj", 4).await, expected);
        assert_eq!(read("", 4).await, []);
        let long = "x".repeat(100_000);
        assert_eq!(
            read(&format!("{long}\nok\n"), 10).await,
            [("x".repeat(10), true), ("ok".to_owned(), false)]
        );
    }
}
