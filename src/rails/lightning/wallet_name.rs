//! Which wallet is meant, told without its secret.

use nostr::hashes::{Hash, sha256};

/// How many hex digits of the hash are enough to tell the wallets of one buyer apart.
const LENGTH: usize = 32;

/// A name of the wallet that `parts` lead to: the same for the same parts, and nothing that leads back to them.
pub(super) fn wallet_name(kind: &str, parts: &[&str]) -> String {
    let text = format!("tollkeeper wallet\n{kind}\n{}", parts.join("\n"));
    let mut name = sha256::Hash::hash(text.as_bytes()).to_string();
    name.truncate(LENGTH);
    format!("{kind}:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_wallets_apart_and_nothing_else() {
        let name = wallet_name("lnbits", &["https://a.example/", "secret"]);
        assert_eq!(
            name,
            wallet_name("lnbits", &["https://a.example/", "secret"])
        );
        for (kind, parts) in [
            ("nwc", ["https://a.example/", "secret"]),
            ("lnbits", ["https://b.example/", "secret"]),
            ("lnbits", ["https://a.example/", "another"]),
        ] {
            assert_ne!(name, wallet_name(kind, &parts));
        }
        assert!(!name.contains("secret") && !name.contains("example"));
        assert_eq!(name.len(), "lnbits:".len() + LENGTH);
    }
}
