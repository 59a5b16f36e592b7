//! The spellings under which a handler may understand a resource URI.
//!
//! A price must not be dodged by writing `PRIVATE://x` or `private://%78` for `private://x`. Which of these a handler
//! treats alike depends on its language and library, so no single normal form is right. Instead the URI as sent and the
//! forms that common parsers turn it into are all looked up; see the gate's price matching for what follows when they
//! disagree.

/// The URI as it was sent, followed by the other forms that a handler may resolve it to; no form twice.
///
/// Covered: white space and control characters around and inside, characters that cannot be seen, back slashes, the case of
/// scheme and host, the ways to write one web address or one local file, `.` and `..` segments, doubled slashes,
/// percent-encoding (also nested), a trailing slash, a fragment, an empty query.
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

/// Whether `uri` is a web address whose host can be written in ways that [`spellings`] does not know: in other alphabets, in
/// their ASCII form, or as a number. Which host is meant is then for the handler's library to say.
#[must_use]
pub fn has_unclear_host(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    let scheme = scheme.to_lowercase();
    if !is_web(&scheme) {
        return false;
    }
    let rest = rest.trim_start_matches('/');
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest[..end].to_lowercase();
    let host = bare_host(&scheme, &authority);
    let host = host.split_once(':').map_or(host, |(host, _port)| host);
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number =
        last.starts_with("0x") || (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    let is_plain_address = host.parse::<std::net::Ipv4Addr>().is_ok();
    !host.is_ascii()
        || host.contains("xn--")
        || host.contains('%')
        || host.starts_with('[')
        || is_number && !is_plain_address
}

/// The schemes whose addresses the URL standard gives a host.
fn is_web(scheme: &str) -> bool {
    matches!(scheme, "http" | "https" | "ws" | "wss" | "ftp")
}

/// Drops what URL parsers and `trim` of some languages drop (white space around, tabs, line breaks and the invisible
/// inside) and turns `\` into `/`.
fn clean(uri: &str) -> String {
    let kept = uri.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
    kept.chars()
        .filter(|c| !is_invisible(*c))
        .map(|c| if c == '\\' { '/' } else { c })
        .collect()
}

/// Control characters, and those that host names are compared without (UTS 46). JavaScript's `trim` drops U+FEFF.
fn is_invisible(c: char) -> bool {
    let ignored = matches!(c, '\u{ad}' | '\u{34f}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}');
    c.is_control() || ignored
}

/// Lower-cases the scheme and, behind `//`, the authority, and writes web addresses and local files in one way.
fn fold_scheme_and_host(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return uri.to_owned();
    };
    let scheme = scheme.to_lowercase();
    let web = is_web(&scheme);
    let behind_slashes = match rest.strip_prefix("//") {
        // The URL standard takes any number of slashes there, and none.
        _ if web => Some(rest.trim_start_matches('/')),
        None if scheme == "file" => return format!("file:///{}", rest.trim_start_matches('/')),
        behind_slashes => behind_slashes,
    };
    let Some(rest) = behind_slashes else {
        return format!("{scheme}:{rest}");
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let mut host = host.to_lowercase();
    if web {
        host = bare_host(&scheme, &host).to_owned();
    } else if scheme == "file" && host == "localhost" {
        host.clear();
    }
    format!("{scheme}://{host}{path}")
}

/// The host of a web address without user, default port and final dot: they lead to the same place.
fn bare_host<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let port = match scheme {
        "https" | "wss" => ":443",
        "ftp" => ":21",
        _ => ":80",
    };
    let host = host.strip_suffix(port).unwrap_or(host);
    host.trim_end_matches(':').trim_end_matches('.')
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
    fn web_addresses_and_local_files_lead_to_one_form_however_they_are_written() {
        let same = |plain: &str, disguises: &[&str]| {
            let forms = spellings(plain);
            for disguise in disguises {
                let found = spellings(disguise);
                assert!(
                    found.iter().any(|form| forms.contains(form)),
                    "{disguise}: {found:?}"
                );
            }
        };
        same(
            "file:///secret/a",
            &[
                "file:/secret/a",
                "file:secret/a",
                "file://localhost/secret/a",
                "FILE://LocalHost/secret/a",
                "file:////secret/a",
                "\u{feff}file:///secret/a",
            ],
        );
        same(
            "https://example.com/x",
            &[
                "https:example.com/x",
                "https:/example.com/x",
                "https:\\\\example.com/x",
                "https://example.com:443/x",
                "https://example.com:/x",
                "https://example.com./x",
                "https://anybody:x@example.com/x",
                "https://exam\u{ad}ple.com/x",
            ],
        );
        assert_eq!(spellings("https://example.com:8443/x").len(), 1);
        assert_eq!(spellings("mail://bob@example.com/x").len(), 1);
    }

    #[test]
    fn a_host_that_has_other_names_is_told_from_one_that_has_none() {
        for clear in [
            "https://example.com/x",
            "https://EXAMPLE.com:8443/ü?é",
            "http://127.0.0.1/x",
            "http://10.0.0.1:80/",
            "x://ü/y",
            "file:///ü",
            "https://a1.b2/",
            "mailto:ü@example.com",
            "",
        ] {
            assert!(!has_unclear_host(clear), "{clear}");
        }
        for unclear in [
            "https://exämple.com/x",
            "HTTPS:ｅxample.com/x",
            "https://xn--exmple-cua.com/x",
            "http://2130706433/x",
            "http://127.1/x",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::1]/x",
            "https://ex%41mple.com/",
            "https://example。com/x",
        ] {
            assert!(has_unclear_host(unclear), "{unclear}");
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
