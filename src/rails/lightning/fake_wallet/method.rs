//! What a wallet can be asked (NIP-47), and the words in which it says no.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A method of NIP-47.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Pays an invoice.
    PayInvoice,
    /// Makes an invoice.
    MakeInvoice,
    /// Says how one invoice or payment stands.
    LookupInvoice,
    /// Lists invoices and payments.
    ListTransactions,
    /// Says how much there is.
    GetBalance,
    /// Says what the wallet is and can do.
    GetInfo,
}

impl Method {
    /// All that the wallet knows.
    pub const ALL: [Self; 6] = [
        Self::PayInvoice,
        Self::MakeInvoice,
        Self::LookupInvoice,
        Self::ListTransactions,
        Self::GetBalance,
        Self::GetInfo,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PayInvoice => "pay_invoice",
            Self::MakeInvoice => "make_invoice",
            Self::LookupInvoice => "lookup_invoice",
            Self::ListTransactions => "list_transactions",
            Self::GetBalance => "get_balance",
            Self::GetInfo => "get_info",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == text)
            .ok_or_else(|| Error::config(format!("{text:?} is no method of a wallet")))
    }
}

/// Some of the methods.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Methods(BTreeSet<Method>);

impl Methods {
    /// Every method.
    #[must_use]
    pub fn all() -> Self {
        Method::ALL.into()
    }

    /// Whether `method` is among them.
    #[must_use]
    pub fn contains(&self, method: Method) -> bool {
        self.0.contains(&method)
    }
}

impl<const N: usize> From<[Method; N]> for Methods {
    fn from(methods: [Method; N]) -> Self {
        Self(methods.into())
    }
}

impl From<Method> for Methods {
    fn from(method: Method) -> Self {
        [method].into()
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(|method| method.as_str()))
            .finish()
    }
}

/// Reads `all`, or names with commas between them.
impl FromStr for Methods {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Self::all());
        }
        text.split(',')
            .map(str::parse)
            .collect::<Result<_>>()
            .map(Self)
    }
}

/// How a wallet says no: the error codes of NIP-47.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Too many requests.
    RateLimited,
    /// Not known, or switched off.
    NotImplemented,
    /// Too little money.
    InsufficientBalance,
    /// More than this connection may spend or keep.
    QuotaExceeded,
    /// This connection may not do that.
    Restricted,
    /// This key has no connection.
    Unauthorized,
    /// Something went wrong inside; what happened is not said.
    Internal,
    /// Anything else.
    Other,
    /// The payment did not go through.
    PaymentFailed,
    /// No such invoice.
    NotFound,
    /// The request was encrypted in a way that the wallet does not know.
    UnsupportedEncryption,
}

impl Refusal {
    const ALL: [Self; 11] = [
        Self::RateLimited,
        Self::NotImplemented,
        Self::InsufficientBalance,
        Self::QuotaExceeded,
        Self::Restricted,
        Self::Unauthorized,
        Self::Internal,
        Self::Other,
        Self::PaymentFailed,
        Self::NotFound,
        Self::UnsupportedEncryption,
    ];

    /// Its code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "RATE_LIMITED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InsufficientBalance => "INSUFFICIENT_BALANCE",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::Restricted => "RESTRICTED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Internal => "INTERNAL",
            Self::Other => "OTHER",
            Self::PaymentFailed => "PAYMENT_FAILED",
            Self::NotFound => "NOT_FOUND",
            Self::UnsupportedEncryption => "UNSUPPORTED_ENCRYPTION",
        }
    }
}

impl FromStr for Refusal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|refusal| refusal.as_str() == text)
            .ok_or_else(|| Error::config(format!("{text:?} is no error code of NIP-47")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for method in Method::ALL {
            assert_eq!(method.as_str().parse::<Method>().unwrap(), method);
        }
        for refusal in Refusal::ALL {
            assert_eq!(refusal.as_str().parse::<Refusal>().unwrap(), refusal);
        }
        assert!("pay".parse::<Method>().is_err());
        assert!("internal".parse::<Refusal>().is_err());
    }

    #[test]
    fn methods_are_named_together() {
        let some: Methods = "pay_invoice,get_info".parse().unwrap();
        assert!(some.contains(Method::PayInvoice) && !some.contains(Method::GetBalance));
        assert_eq!("all".parse::<Methods>().unwrap(), Methods::all());
        assert!("".parse::<Methods>().is_err());
        assert!("pay_invoice,".parse::<Methods>().is_err());
    }
}
