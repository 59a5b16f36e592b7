//! The switches: everything in which a wallet can fail its owner. All are off at first.

use std::str::FromStr;
use std::time::Duration;

use super::method::{Methods, Refusal};
use crate::error::{Error, Result};

/// What is wrong with a wallet.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// These are not done and not answered.
    pub ignore: Methods,
    /// These are done and not answered.
    pub mute: Methods,
    /// These are done, and what is answered cannot be read.
    pub garbage: Methods,
    /// These are done at once and answered so much later.
    pub late: Option<(Methods, Duration)>,
    /// These are not done, and the answer says no.
    pub refuse: Option<(Methods, Refusal)>,
    /// These are done, and the answer says no.
    pub refuse_after: Option<(Methods, Refusal)>,
    /// These are missing, by the wallet's own word.
    pub without: Methods,
    /// Every answer comes twice.
    pub answer_twice: bool,
    /// Answers name the request, but not who it was from, which NIP-47 wants.
    pub unaddressed: bool,
    /// What is wrong with the invoices that are made.
    pub invoice: Option<InvoiceFault>,
    /// Preimages that do not belong to the invoice.
    pub wrong_preimage: bool,
    /// What is wrong with the notifications.
    pub notifications: Option<NotificationFault>,
    /// NIP-44 is not known.
    pub nip04_only: bool,
    /// Payments stay pending.
    pub hold: Option<Hold>,
}

/// What is wrong with an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvoiceFault {
    /// It asks for ten times as much as it should.
    WrongAmount,
    /// It asks for no amount.
    NoAmount,
    /// The answer names another payment hash than the invoice in it.
    OtherHash,
    /// It has expired.
    Expired,
    /// It is for another network.
    OtherNetwork,
    /// It is the one that was made before.
    SameAgain,
}

/// What is wrong with notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotificationFault {
    /// They are promised, and never come.
    None,
    /// The wallet says that it has none.
    Unsupported,
    /// Each comes twice.
    Twice,
    /// An invoice is reported as paid when it is made. When it is paid, it is reported again.
    Early,
}

/// How long payments stay pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// Until a test lets them go.
    UntilReleased,
    /// For so long.
    For(Duration),
}

/// What [`Faults::switch`] understands, for whoever writes a help text.
pub const SWITCHES: &str = "ignore=METHODS, mute=METHODS, garbage=METHODS, late=METHODS@SECS, refuse=METHODS@CODE, \
    refuse-after=METHODS@CODE, without=METHODS, answer-twice, unaddressed, \
    invoice=wrong-amount|no-amount|other-hash|expired|other-network|same-again, wrong-preimage, \
    notifications=none|unsupported|twice|early, nip04-only, hold, hold=SECS (METHODS: all, or names of NIP-47 with commas; \
    CODE: an error code of NIP-47)";

impl Faults {
    /// Switches on what `text` names; [`SWITCHES`] says how.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if there is no such switch, or it wants another value.
    pub fn switch(&mut self, text: &str) -> Result<()> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("ignore", Some(methods)) => self.ignore = methods.parse()?,
            ("mute", Some(methods)) => self.mute = methods.parse()?,
            ("garbage", Some(methods)) => self.garbage = methods.parse()?,
            ("without", Some(methods)) => self.without = methods.parse()?,
            ("late", Some(value)) => {
                let (methods, secs) = at(value)?;
                self.late = Some((methods, seconds(secs)?));
            }
            ("refuse", Some(value)) => {
                let (methods, code) = at(value)?;
                self.refuse = Some((methods, code.parse()?));
            }
            ("refuse-after", Some(value)) => {
                let (methods, code) = at(value)?;
                self.refuse_after = Some((methods, code.parse()?));
            }
            ("invoice", Some(fault)) => self.invoice = Some(fault.parse()?),
            ("notifications", Some(fault)) => self.notifications = Some(fault.parse()?),
            ("hold", Some(secs)) => self.hold = Some(Hold::For(seconds(secs)?)),
            ("hold", None) => self.hold = Some(Hold::UntilReleased),
            ("unaddressed", None) => self.unaddressed = true,
            ("answer-twice", None) => self.answer_twice = true,
            ("wrong-preimage", None) => self.wrong_preimage = true,
            ("nip04-only", None) => self.nip04_only = true,
            _ => {
                return Err(Error::config(format!(
                    "{text:?} is no fault; there are: {SWITCHES}"
                )));
            }
        }
        Ok(())
    }
}

impl FromStr for InvoiceFault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "wrong-amount" => Self::WrongAmount,
            "no-amount" => Self::NoAmount,
            "other-hash" => Self::OtherHash,
            "expired" => Self::Expired,
            "other-network" => Self::OtherNetwork,
            "same-again" => Self::SameAgain,
            _ => return Err(Error::config(format!("{text:?} is no fault of an invoice"))),
        })
    }
}

impl FromStr for NotificationFault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "none" => Self::None,
            "unsupported" => Self::Unsupported,
            "twice" => Self::Twice,
            "early" => Self::Early,
            _ => {
                return Err(Error::config(format!(
                    "{text:?} is no fault of notifications"
                )));
            }
        })
    }
}

fn at(value: &str) -> Result<(Methods, &str)> {
    let (methods, rest) = value
        .split_once('@')
        .ok_or_else(|| Error::config(format!("{value:?} must be METHODS@VALUE")))?;
    Ok((methods.parse()?, rest))
}

fn seconds(text: &str) -> Result<Duration> {
    text.parse::<f64>()
        .ok()
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        // A day; timers take no more than they can count to.
        .filter(|time| *time <= Duration::from_secs(86_400))
        .ok_or_else(|| Error::config(format!("{text:?} must be seconds, at most a day")))
}

#[cfg(test)]
mod tests {
    use super::super::method::Method;
    use super::*;

    #[test]
    fn every_switch_can_be_typed() {
        let mut faults = Faults::default();
        for text in [
            "ignore=get_info",
            "mute=pay_invoice",
            "garbage=all",
            "late=make_invoice,pay_invoice@1.5",
            "refuse=lookup_invoice@RATE_LIMITED",
            "refuse-after=pay_invoice@INTERNAL",
            "without=list_transactions",
            "answer-twice",
            "unaddressed",
            "invoice=other-hash",
            "wrong-preimage",
            "notifications=early",
            "nip04-only",
            "hold=2",
        ] {
            faults.switch(text).unwrap();
        }
        assert_eq!(
            faults,
            Faults {
                ignore: Method::GetInfo.into(),
                mute: Method::PayInvoice.into(),
                garbage: Methods::all(),
                late: Some((
                    [Method::MakeInvoice, Method::PayInvoice].into(),
                    Duration::from_millis(1500)
                )),
                refuse: Some((Method::LookupInvoice.into(), Refusal::RateLimited)),
                refuse_after: Some((Method::PayInvoice.into(), Refusal::Internal)),
                without: Method::ListTransactions.into(),
                answer_twice: true,
                unaddressed: true,
                invoice: Some(InvoiceFault::OtherHash),
                wrong_preimage: true,
                notifications: Some(NotificationFault::Early),
                nip04_only: true,
                hold: Some(Hold::For(Duration::from_secs(2))),
            }
        );
        faults.switch("hold").unwrap();
        assert_eq!(faults.hold, Some(Hold::UntilReleased));
    }

    #[test]
    fn what_is_no_switch_is_refused() {
        for text in [
            "",
            "slow",
            "ignore",
            "ignore=",
            "late=all",
            "late=all@x",
            "late=all@-1",
            "late=all@1e9",
            "refuse=all@NO",
            "invoice=none",
            "notifications",
            "answer-twice=yes",
            "hold=for ever",
        ] {
            assert!(Faults::default().switch(text).is_err(), "{text}");
        }
    }
}
