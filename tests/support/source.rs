//! As much of Rust's grammar as it takes to see which modules and crates a source file names.
//!
//! This reads text, not the compiler's mind: comments and literals are blanked, test-only items are cut out, and what is
//! left is searched for paths. It errs towards seeing a path where there is none, which is noticed at once.

use std::collections::BTreeSet;

/// Source text reduced to what the shipped crate is made of.
#[derive(Debug)]
pub(crate) struct Source {
    code: String,
    test_modules: Vec<String>,
}

impl Source {
    /// Reads a file's text.
    pub(crate) fn new(text: &str) -> Self {
        let blanked = blanked(text);
        Self {
            code: without_tests(&blanked),
            test_modules: test_modules(&blanked),
        }
    }

    /// The modules in files of their own that are built for tests only.
    pub(crate) fn test_modules(&self) -> &[String] {
        &self.test_modules
    }

    /// The code that is left, with comments and the insides of literals as spaces.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Every path that the code names, as segments, `use` trees expanded.
    ///
    /// Paths that begin with a name that the file itself binds (by `use` or `mod`) lead where that binding leads, which is
    /// listed on its own, so they are left out.
    pub(crate) fn paths(&self) -> Vec<Vec<String>> {
        let (uses, rest) = self.split_uses();
        let mut paths: Vec<Vec<String>> = Vec::new();
        let mut bound: BTreeSet<String> = BTreeSet::new();
        for tree in &uses {
            expand(tree, &[], &mut paths, &mut bound);
        }
        let tokens = tokens(&rest);
        for pair in tokens.windows(2) {
            if pair[0] == "mod" {
                bound.insert(pair[1].to_owned());
            }
        }
        // In `use` trees, too, a module that the file declares comes before a crate of that name.
        let declared: BTreeSet<&str> = tokens
            .windows(2)
            .filter(|pair| pair[0] == "mod")
            .map(|pair| pair[1])
            .collect();
        paths.retain(|path| !declared.contains(path[0].as_str()));
        paths.extend(
            inline_paths(&tokens)
                .into_iter()
                .filter(|path| !bound.contains(&path[0])),
        );
        paths
    }

    /// Names of the macros that the code calls.
    pub(crate) fn macros(&self) -> BTreeSet<String> {
        tokens(&self.code)
            .windows(2)
            .filter(|pair| pair[1] == "!" && is_name(pair[0]))
            .map(|pair| pair[0].to_owned())
            .collect()
    }

    /// Whether the code has this word.
    pub(crate) fn has_word(&self, word: &str) -> bool {
        tokens(&self.code).contains(&word)
    }

    /// The bodies of all `use` declarations, and the code without them.
    fn split_uses(&self) -> (Vec<String>, String) {
        let (mut uses, mut rest) = (Vec::new(), String::new());
        let mut left = self.code.as_str();
        while let Some(at) = find_word(left, "use") {
            let after = &left[at + 3..];
            let end = after.find(';').unwrap_or(after.len());
            // `impl Trait + use<'a>` is no declaration.
            if after.trim_start().starts_with('<') {
                rest.push_str(&left[..at + 3]);
                left = after;
                continue;
            }
            rest.push_str(&left[..at]);
            uses.push(after[..end].to_owned());
            left = after.get(end + 1..).unwrap_or("");
        }
        rest.push_str(left);
        (uses, rest)
    }
}

/// Puts spaces in place of comments and of what stands inside literals; line breaks stay.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => end_of_line(&chars, at),
            ('/', Some('*')) => end_of_block_comment(&chars, at),
            ('"', _) => end_of_text(&chars, at + 1),
            ('r' | 'b' | 'c', _) if !in_word(&chars, at) => end_of_raw_text(&chars, at),
            ('\'', _) => end_of_char(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

fn in_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn end_of_line(chars: &[char], at: usize) -> usize {
    chars[at..]
        .iter()
        .position(|c| *c == '\n')
        .map_or(chars.len(), |n| at + n)
}

fn end_of_block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0, at);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

/// Where the text that began before `at` ends, its quote included.
fn end_of_text(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Where `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#` and the like end; `at` itself if none begins there.
fn end_of_raw_text(chars: &[char], at: usize) -> usize {
    let letters = chars[at..]
        .iter()
        .take_while(|c| matches!(c, 'r' | 'b' | 'c'))
        .count();
    let hashes = chars[at + letters..]
        .iter()
        .take_while(|c| **c == '#')
        .count();
    let quote = at + letters + hashes;
    if letters > 2 || chars.get(quote) != Some(&'"') {
        return at;
    }
    if !chars[at..at + letters].contains(&'r') {
        return end_of_text(chars, quote + 1);
    }
    let closing = |from: usize| {
        chars[from] == '"' && chars[from + 1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    (quote + 1..chars.len())
        .find(|from| closing(*from))
        .map_or(chars.len(), |from| from + 1 + hashes)
}

/// Where the character literal at `at` ends; `at` itself if it is a lifetime.
fn end_of_char(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), Some(_)) => {
            let close = chars[at + 3..].iter().position(|c| *c == '\'');
            close.map_or(chars.len(), |n| at + 3 + n + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// Where the next mark of an item that is built for tests only begins and ends.
fn test_mark(code: &str) -> Option<(usize, usize)> {
    let begin = ["#[cfg(test)]", "#[cfg(all(test,"]
        .iter()
        .filter_map(|mark| code.find(mark))
        .min()?;
    let length = code[begin..].find(']')? + 1;
    Some((begin, begin + length))
}

/// The names in `#[cfg(test)] mod NAME;`.
fn test_modules(code: &str) -> Vec<String> {
    let (mut names, mut left) = (Vec::new(), code);
    while let Some((_, end)) = test_mark(left) {
        left = &left[end..];
        if let Some(declaration) = left.trim_start().strip_prefix("mod ")
            && let Some(end) = declaration.find([';', '{'])
            && declaration[end..].starts_with(';')
        {
            names.push(declaration[..end].trim().to_owned());
        }
    }
    names
}

/// Cuts out every item under `#[cfg(test)]`, to its closing brace or semicolon.
fn without_tests(code: &str) -> String {
    let (mut out, mut left) = (String::new(), code);
    while let Some((begin, end)) = test_mark(left) {
        out.push_str(&left[..begin]);
        let item = &left[end..];
        let mut depth = 0usize;
        let end = item.char_indices().find_map(|(at, c)| {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            (depth == 0 && matches!(c, '}' | ';')).then_some(at + 1)
        });
        left = &item[end.unwrap_or(item.len())..];
    }
    out.push_str(left);
    out
}

/// Words, `::`, and single characters of everything else.
fn tokens(code: &str) -> Vec<&str> {
    let (mut found, mut left) = (Vec::new(), code.trim_start());
    while let Some(first) = left.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            left.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(left.len())
        } else if left.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        found.push(&left[..length]);
        left = left[length..].trim_start();
    }
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn find_word(text: &str, word: &str) -> Option<usize> {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '#');
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        edge(text[..*at].chars().next_back()) && edge(text[*at + word.len()..].chars().next())
    })
}

/// `a::b::{c, d as e, f::*}` as paths, and the names that they bind.
fn expand(
    tree: &str,
    prefix: &[String],
    paths: &mut Vec<Vec<String>>,
    bound: &mut BTreeSet<String>,
) {
    let tree = tree.trim().trim_start_matches("::");
    if let Some(open) = tree.find('{') {
        let prefix: Vec<String> = prefix
            .iter()
            .cloned()
            .chain(segments(&tree[..open]))
            .collect();
        let inside = tree[open + 1..].trim_end().trim_end_matches('}');
        // The closing brace of this group is the last one; those of inner groups were opened again further in.
        let inner_closes = inside
            .matches('{')
            .count()
            .saturating_sub(inside.matches('}').count());
        let inside = format!("{inside}{}", "}".repeat(inner_closes));
        for branch in branches(&inside) {
            expand(branch, &prefix, paths, bound);
        }
        return;
    }
    let (path, alias) = match find_word(tree, "as") {
        Some(at) => (&tree[..at], Some(tree[at + 2..].trim())),
        None => (tree, None),
    };
    let mut path: Vec<String> = prefix.iter().cloned().chain(segments(path)).collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(name) = alias.or(path.last().map(String::as_str)) {
        bound.insert(name.to_owned());
    }
    if !path.is_empty() {
        paths.push(path);
    }
}

/// The parts of a group, split at the commas that are not inside an inner group.
fn branches(inside: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&inside[start..]);
    found.retain(|branch| !branch.trim().is_empty());
    found
}

fn segments(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split("::")
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
}

/// `a::b::C` where it stands in the code, from its first segment.
fn inline_paths(tokens: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 1 < tokens.len() {
        let starts = is_name(tokens[at])
            && tokens[at + 1] == "::"
            && (at == 0 || tokens[at - 1] != "::" || !follows_a_segment(tokens, at - 1));
        if !starts {
            at += 1;
            continue;
        }
        let mut path = vec![tokens[at].to_owned()];
        while tokens.get(at + 1) == Some(&"::")
            && tokens.get(at + 2).is_some_and(|next| is_name(next))
        {
            path.push(tokens[at + 2].to_owned());
            at += 2;
        }
        found.push(path);
        at += 1;
    }
    found
}

/// Whether the `::` at `at` continues a path (`a::`, `<T>::`) rather than beginning one (`::a`).
fn follows_a_segment(tokens: &[&str], at: usize) -> bool {
    at > 0 && (is_name(tokens[at - 1]) || tokens[at - 1] == ">")
}
