//! The story of one payment, in words and in order.

use std::time::Duration;

use crate::gateway::output::harmless;
use crate::ledger::{BALANCE, Entry, EntryState, Moment, UNDER_WAY};
use crate::payment::Timestamp;

/// The story of `entry`, line by line.
pub(super) fn tell(entry: &Entry) -> Vec<String> {
    let mut lines = vec![
        format!("Payment {}", entry.id),
        format!("  of      {}", entry.amount),
        format!("  for     {}", harmless(&entry.capability)),
        format!("  by      {}, {}", entry.pmi, lifecycle(entry)),
        format!("  client  {}", entry.client),
    ];
    if !is_drawn(entry) {
        lines.push(format!("  offer   until {}", utc(entry.deadline)));
    }
    if !is_drawn(entry)
        && let Some(until) = entry.watch_until
    {
        lines.push(format!("  watched until {}", utc(until)));
    }
    lines.push(String::new());
    let mut before: Option<&Moment> = None;
    for moment in &entry.history {
        let when = match before {
            None => utc(moment.at),
            Some(before) => after(before.at, moment.at),
        };
        lines.push(format!(
            "  {when:>23}  {}",
            harmless(&what(entry, before, moment))
        ));
        before = Some(moment);
    }
    lines.push(String::new());
    lines.push(format!("Now: {} ({}).", now(entry), entry.state));
    lines
}

fn lifecycle(entry: &Entry) -> &'static str {
    match entry.interaction {
        crate::payment::PaymentInteraction::ExplicitGating => "explicit gating",
        _ => "transparent",
    }
}

/// What happened at `moment`.
fn what(entry: &Entry, before: Option<&Moment>, moment: &Moment) -> String {
    use EntryState as S;
    let note = moment.note.as_deref();
    let because = |text: &str| match note {
        Some(note) => format!("{text}: {note}"),
        None => text.to_owned(),
    };
    let from = before.map(|before| before.state);
    match (from, moment.state) {
        (Some(same), state) if same == state && note == Some(UNDER_WAY) => UNDER_WAY.to_owned(),
        (Some(same), state) if same == state => {
            because("the request stopped waiting for this payment")
        }
        (_, S::Quoted) => format!("a price was named: {}", entry.amount),
        (_, S::Issued) if is_drawn(entry) => {
            "there was enough on the client's account; nobody was asked to pay".to_owned()
        }
        (_, S::Issued) if is_charged(entry) => {
            "what the client sent is being charged; nobody was asked to pay".to_owned()
        }
        (_, S::Issued) => "the payment request was made, and the client asked to pay".to_owned(),
        (_, S::Abandoned) => because("given up before the client was asked"),
        (_, S::Expired) => "the offer ended unpaid".to_owned(),
        (Some(S::Claimed), S::Settled) => because("the right to one execution came back"),
        (Some(S::Expired), S::Settled) => {
            format!("{} came, after the offer had ended", came(entry))
        }
        (_, S::Settled) if is_drawn(entry) => {
            format!("{} went off the client's account", came(entry))
        }
        (_, S::Settled) => format!("{} came", came(entry)),
        (_, S::Claimed) => match note.and_then(|note| note.strip_prefix("by ")) {
            Some(request) if is_charged(entry) => {
                format!("let through to the server: the request {request}")
            }
            Some(other) => {
                format!("let through to the server: a later request for the same call, {other}")
            }
            None if is_drawn(entry) => "let through to the server".to_owned(),
            None => "let through to the server: the request that was asked to pay".to_owned(),
        },
        (_, S::Delivered) => "the server answered, and the answer was written down".to_owned(),
    }
}

/// Whether it was paid from the client's account.
fn is_drawn(entry: &Entry) -> bool {
    entry.pmi.as_str() == BALANCE
}

/// Whether it is the charge of what the client sent: there is a digest of that where others have what is to be paid.
fn is_charged(entry: &Entry) -> bool {
    let made = entry.payment_request.as_ref();
    made.is_some_and(|made| made.pay_req.as_str().starts_with("sha-256="))
}

fn came(entry: &Entry) -> String {
    entry.settlement.as_ref().map_or_else(
        || "the money".to_owned(),
        |settlement| settlement.amount.to_string(),
    )
}

/// Where it stands.
fn now(entry: &Entry) -> String {
    match entry.state {
        EntryState::Quoted => {
            "the payment request is being made; nothing has left for the client".to_owned()
        }
        EntryState::Issued if entry.waiting => "the request waits for its money".to_owned(),
        EntryState::Issued if is_charged(entry) => {
            "whether it was charged is not known yet; money that is found buys a later call"
                .to_owned()
        }
        EntryState::Issued => {
            "open, but no request waits for it; money that comes buys a later call".to_owned()
        }
        EntryState::Settled if entry.waiting => {
            "paid; the request is about to be let through".to_owned()
        }
        EntryState::Settled => {
            "paid and unused: the client may have one execution of the same call".to_owned()
        }
        EntryState::Claimed => "the server is working on it".to_owned(),
        EntryState::Delivered => match &entry.response {
            Some(response) => format!(
                "done; the answer, {} bytes, is kept for the request {}",
                response.len(),
                entry
                    .claimed_by
                    .map_or_else(String::new, |by| by.short().to_string())
            ),
            None => "done; the answer is no longer kept".to_owned(),
        },
        EntryState::Abandoned => "over; nobody was asked to pay".to_owned(),
        EntryState::Expired => "unpaid; money that still comes buys a later call".to_owned(),
    }
}

/// How long after the moment before.
fn after(before: Timestamp, at: Timestamp) -> String {
    if at < before {
        return format!("(clock back {})", length(before.since(at)));
    }
    format!("+ {}", length(at.since(before)))
}

fn length(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{:01} s", millis / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `2026-01-31 23:59:59.123 UTC`, without the UTC: every time here is.
fn utc(at: Timestamp) -> String {
    let (seconds, millis) = (at.as_secs(), at.as_millis() % 1000);
    let (day, time) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years: a year then ends with its leap day.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time % 3600 / 60, time % 60);
    format!("{year:04}-{month:02}-{of_month:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{NewEntry, Transition};
    use crate::payment::{
        Amount, ClientPubkey, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest,
        RequestEventId, Settlement, Unit,
    };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn entry() -> Entry {
        Entry::quoted(NewEntry {
            id: RequestEventId::from_bytes([0xab; 32]),
            client: ClientPubkey::from_bytes([0xcd; 32]),
            identity: InvocationIdentity::from_bytes([1; 32]),
            capability: "tool:search\u{1b}[31m".to_owned(),
            interaction: PaymentInteraction::Transparent,
            pmi: "fake".parse().unwrap(),
            amount: Amount::new(10, Unit::SATS).unwrap(),
            description: String::new(),
            meta: None,
            request: Some("secret params".to_owned()),
            route: String::new(),
            deadline: at(600_000),
            quoted_at: at(0),
        })
    }

    #[test]
    fn a_charge_is_told_as_one() {
        let mut entry = entry();
        let amount = entry.amount.clone();
        let pay_req = PayReq::new("sha-256=abc");
        let pmi = entry.pmi.clone();
        let moves = [
            Transition::Issue {
                payment_request: PaymentRequest::new(pmi, amount.clone(), pay_req, "1"),
                watch_until: at(1),
            },
            Transition::Detach {
                reason: "what it brought is charged".to_owned(),
            },
        ];
        for transition in moves {
            let _ = entry.make(transition, at(1));
        }
        let told = tell(&entry).join("\n");
        assert!(told.contains("what the client sent is being charged; nobody was asked"));
        assert!(told.contains("Now: whether it was charged is not known yet"));
        let by = RequestEventId::from_bytes([0xef; 32]);
        let moves = [
            Transition::Settle(Settlement::new(amount, "pi_1")),
            Transition::Claim { by },
        ];
        for transition in moves {
            let _ = entry.make(transition, at(2));
        }
        let told = tell(&entry).join("\n");
        assert!(told.contains(&format!("let through to the server: the request {by}")));
    }

    #[test]
    fn a_payment_with_detours_is_told_from_the_first_word_to_the_last() {
        let mut entry = entry();
        let amount = entry.amount.clone();
        let pay_req = PayReq::new("lnbc-secret");
        let moves = [
            (
                7,
                Transition::Issue {
                    payment_request: PaymentRequest::new(
                        "fake".parse().unwrap(),
                        amount.clone(),
                        pay_req,
                        "1",
                    ),
                    watch_until: at(4_200_000),
                },
            ),
            (
                12_500,
                Transition::Detach {
                    reason: "cancelled by the client".to_owned(),
                },
            ),
            (600_000, Transition::Expire),
            (
                4_000_000,
                Transition::Settle(Settlement::new(amount, "hash")),
            ),
            (
                3_999_000,
                Transition::Claim {
                    by: RequestEventId::from_bytes([0xef; 32]),
                },
            ),
            (
                4_060_000,
                Transition::Restore {
                    reason: "the handler was lost".to_owned(),
                },
            ),
            (90_000_000, Transition::Claim { by: entry.id }),
            (
                263_000_000,
                Transition::Deliver {
                    response: Some("secret result".to_owned()),
                },
            ),
        ];
        for (millis, transition) in moves {
            let _ = entry.make(transition, at(millis));
        }
        let told = tell(&entry).join("\n");
        let by = "ef".repeat(32);
        for line in [
            "2023-11-14 22:13:20.000  a price was named: 10 sats",
            "+ 7 ms  the payment request was made, and the client asked to pay",
            "+ 12.4 s  the request stopped waiting for this payment: cancelled by the client",
            "+ 9 min 47 s  the offer ended unpaid",
            "+ 56 min 40 s  10 sats came, after the offer had ended",
            &format!(
                "(clock back 1.0 s)  let through to the server: a later request for the same call, {by}"
            ),
            "+ 1 min 1 s  the right to one execution came back: the handler was lost",
            "+ 23 h 52 min  let through to the server: the request that was asked to pay",
            "+ 2 d 0 h  the server answered, and the answer was written down",
            "Now: done; the answer, 13 bytes, is kept for the request",
        ] {
            assert!(told.contains(line), "{line}\n\n{told}");
        }
        assert!(
            !told.contains("secret") && !told.contains('\u{1b}'),
            "{told}"
        );
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400, "2000-02-29 00:00:00.000"),
            (1_709_251_199, "2024-02-29 23:59:59.000"),
            (4_107_542_400, "2100-03-01 00:00:00.000"),
            (1_798_761_599, "2026-12-31 23:59:59.000"),
        ] {
            assert_eq!(utc(Timestamp::from_secs(seconds)), day);
        }
    }
}
