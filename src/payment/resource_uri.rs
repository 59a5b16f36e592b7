//! The spellings under which a handler may understand a resource URI.
//!
//! A price must not be dodged by writing `PRIVATE://x` or `private://%78` for `private://x`. Which of these a handler
//! treats alike depends on its language and library, so no single normal form is right. Instead the URI as sent and the
//! forms that common parsers turn it into are all looked up; see the gate's price matching for what follows when they
//! disagree.

/// The URI as it was sent, followed by the other forms that a handler may resolve it to; no form twice.
///
/// Covered: white space and control characters around and inside, back slashes, the case of scheme and host, `.` and `..`
/// segments, doubled slashes, percent-encoding (also nested), a trailing slash, a fragment, an empty query.
#[must_use]
pub fn spellings(uri: &str) -> Vec<String> {
    let mut forms = vec![uri.to_owned()];
    let mut add = |form: String| {
        if !forms.contains(&form) {
            forms.push(form);
        }
    };
    let mut decoded = uri.to_owned();
    // Three rounds undo `%252e`-style nesting deeper than any handler in use goes.
    for _ in 0..4 {
        let clean = clean(&decoded);
        let normal = fold_segments(&fold_scheme_and_host(&clean));
        for form in [clean, normal] {
            let bare = without_tail(&form);
            add(form);
            add(bare);
        }
        let next = percent_decode(&decoded);
        if next == decoded {
            break;
        }
        decoded = next;
    }
    forms
}

/// Drops what URL parsers drop (white space around, tabs and line breaks inside) and turns `\` into `/`.
fn clean(uri: &str) -> String {
    let kept = uri.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    kept.chars()
        .filter(|c| !c.is_control())
        .map(|c| if c == '\\' { '/' } else { c })
        .collect()
}

/// Lower-cases the scheme and, behind `//`, the authority.
fn fold_scheme_and_host(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return uri.to_owned();
    };
    let scheme = scheme.to_lowercase();
    match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            format!("{scheme}://{}{}", rest[..end].to_lowercase(), &rest[end..])
        }
        None => format!("{scheme}:{rest}"),
    }
}

/// Resolves `.`, `..` and empty segments of the path.
fn fold_segments(uri: &str) -> String {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let (path, tail) = uri.split_at(end);
    let start = path
        .find("://")
        .map_or_else(|| path.find(':').map_or(0, |colon| colon + 1), |at| at + 3);
    let (root, path) = path.split_at(start);
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let slash = if path.len() > 1 && path.ends_with('/') && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    format!("{root}{}{slash}{tail}", segments.join("/"))
}

/// Without a fragment, an empty query and trailing slashes.
fn without_tail(uri: &str) -> String {
    let uri = uri
        .split('#')
        .next()
        .unwrap_or_default()
        .trim_end_matches('?');
    let shortest = uri.find("://").map_or(0, |at| at + 3);
    let trimmed = uri.trim_end_matches('/');
    uri[..trimmed.len().max(shortest)].to_owned()
}

/// One round of percent-decoding; what does not decode to UTF-8 stays as it is.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        match (bytes[i], digit(i + 1), digit(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            (byte, ..) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_disguise_leads_to_the_plain_form() {
        for disguise in [
            "PRIVATE://x",
            " private://x",
            "private://x\n",
            "pri\tvate://x",
            "private://./x",
            "private://a/../x",
            "private:///x",
            "private://%78",
            "private://%2578",
            "private://x/",
            "private://x//",
            "private://x#part",
            "private://x?",
            "private:\\\\x",
            "private://%2e/x",
        ] {
            assert!(
                spellings(disguise).iter().any(|form| form == "private://x"),
                "{disguise}: {:?}",
                spellings(disguise)
            );
        }
    }

    #[test]
    fn the_form_as_sent_comes_first_and_a_plain_uri_has_no_other() {
        assert_eq!(spellings("private://x"), ["private://x"]);
        assert_eq!(spellings("private://a/b?c=1"), ["private://a/b?c=1"]);
        assert_eq!(spellings("PRIVATE://x")[0], "PRIVATE://x");
    }

    #[test]
    fn odd_text_is_survived() {
        for odd in [
            "",
            ":",
            "://",
            "%",
            "%e2%82",
            "//",
            "a:",
            "é://ü/../ß",
            "..",
            "?#",
        ] {
            let _ = spellings(odd);
        }
    }
}
