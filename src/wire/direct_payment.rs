//! Money that comes with the request instead of after an offer (CEP-8, "direct payment").

use std::fmt;

use sha2::{Digest, Sha256};

use super::Tag;
use crate::payment::{Pmi, RequestEventId};

/// What names of direct payments are made from, beside the payment itself.
const DOMAIN: &[u8] = b"tollkeeper/direct-payment/1";

/// `["direct_payment", <pmi>, <payload>]` of a request. Whoever knows the payload can use it, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectPayment {
    /// The payment method.
    pub pmi: Pmi,
    payload: String,
}

impl DirectPayment {
    /// The most of one request that are looked at.
    pub const MOST: usize = 8;

    /// `payload` of `pmi`.
    pub fn new(pmi: Pmi, payload: impl Into<String>) -> Self {
        let payload = payload.into();
        Self { pmi, payload }
    }

    /// The payload, for the rail that takes it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.payload
    }

    /// The name under which it is on the books: the same for the same payment, whoever presents it with whatever request, so
    /// that it is taken once. It gives nothing of the payload away. Another `attempt` has another name.
    #[must_use]
    pub fn name(&self, attempt: u32) -> RequestEventId {
        let mut hash = Sha256::new();
        // A method has no zero byte in it.
        for part in [DOMAIN, self.pmi.as_str().as_bytes()] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(attempt.to_be_bytes());
        hash.update(&self.payload);
        RequestEventId::from_bytes(hash.finalize().into())
    }
}

impl fmt::Debug for DirectPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectPayment({})", self.pmi)
    }
}

impl Tag {
    /// The direct payments that `tags` carry, in order (N-103); what is none is passed over.
    pub fn direct_payments<'a>(tags: impl IntoIterator<Item = &'a Self>) -> Vec<DirectPayment> {
        let sent = tags.into_iter().filter_map(Self::as_direct_payment);
        sent.take(DirectPayment::MOST).collect()
    }

    fn as_direct_payment(&self) -> Option<DirectPayment> {
        let [name, pmi, payload, ..] = self.parts() else {
            return None;
        };
        if name != Self::DIRECT_PAYMENT || payload.is_empty() {
            return None;
        }
        Some(DirectPayment::new(pmi.parse().ok()?, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pmi: &str, payload: &str) -> DirectPayment {
        DirectPayment::new(pmi.parse().unwrap(), payload)
    }

    #[test]
    fn direct_payments_keep_their_order_and_nonsense_is_passed_over() {
        let tags = [
            Tag::new(["direct_payment", "a-direct", "one"]),
            Tag::new(["direct_payment", "B!", "x"]),
            Tag::new(["direct_payment", "a-direct"]),
            Tag::new(["direct_payment", "a-direct", ""]),
            Tag::new(["pmi", "a-direct", "x"]),
            Tag::new(["direct_payment", "b-direct", "two", "more"]),
        ];
        let sent = Tag::direct_payments(&tags);
        assert_eq!(sent, [of("a-direct", "one"), of("b-direct", "two")]);
        let many = vec![Tag::new(["direct_payment", "a-direct", "x"]); 100];
        assert_eq!(Tag::direct_payments(&many).len(), DirectPayment::MOST);
    }

    #[test]
    fn one_payment_has_one_name_and_no_other_has_it() {
        let one = of("a-direct", "payload");
        assert_eq!(one.name(0), of("a-direct", "payload").name(0));
        for other in [
            of("b-direct", "payload").name(0),
            of("a-direct", "payload2").name(0),
            one.name(1),
        ] {
            assert_ne!(one.name(0), other);
        }
    }

    #[test]
    fn a_direct_payment_is_never_printed() {
        assert_eq!(
            format!("{:?}", of("a-direct", "money")),
            "DirectPayment(a-direct)"
        );
    }
}
