//! Rows as attempts, and attempts as rows.

use rusqlite::types::Type;
use rusqlite::{Row, named_params};

use crate::client::ledger::{Attempt, AttemptId, NewAttempt};
use crate::payment::{Amount, PaymentProof, Timestamp};

/// What [`read`] reads, in its order.
pub(super) const COLUMNS: &str = "number, call, event, server, identity, capability, worth, worth_unit, state, answer, \
                                  reserved_at_ms, decided_at_ms, note, proof, payment_request, request, demand, \
                                  acceptance, response, retry_event, retry, wallet";

/// A moment as SQLite counts.
pub(super) fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// An amount as SQLite counts: amounts end at 2^53.
pub(super) fn value(amount: &Amount) -> i64 {
    i64::try_from(amount.value()).unwrap_or(i64::MAX)
}

/// An amount from its columns.
pub(super) fn amount(value: i64, unit: &str) -> Option<Amount> {
    Amount::new(u64::try_from(value).ok()?, unit.parse().ok()?).ok()
}

/// Something in a row that this version cannot read.
pub(super) fn odd(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

fn parsed<T: std::str::FromStr<Err = crate::Error>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| odd(column, error))
}

fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// A row with [`COLUMNS`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let number: i64 = row.get(0)?;
    let identity: String = row.get(4)?;
    let payment: String = row.get(14)?;
    let worth: Option<i64> = row.get(6)?;
    let worth_unit: Option<String> = row.get(7)?;
    let identity: crate::payment::RequestEventId =
        identity.parse().map_err(|error| odd(4, error))?;
    let new = NewAttempt {
        call: parsed(row, 1)?,
        event: parsed(row, 2)?,
        server: parsed(row, 3)?,
        identity: crate::payment::InvocationIdentity::from_bytes(*identity.as_bytes()),
        capability: row.get(5)?,
        payment: serde_json::from_str(&payment).map_err(|error| odd(14, error))?,
        wallet: row.get(21)?,
        worth: worth
            .zip(worth_unit)
            .and_then(|(value, unit)| amount(value, &unit)),
        request: row.get(15)?,
        demand: row.get(16)?,
        at: moment(row.get(10)?),
    };
    let id = AttemptId::new(u64::try_from(number).unwrap_or_default());
    let mut attempt = Attempt::reserved(id, new);
    attempt.state = parsed(row, 8)?;
    attempt.answer = parsed(row, 9)?;
    attempt.decided_at = row.get::<_, Option<i64>>(11)?.map(moment);
    attempt.note = row.get(12)?;
    attempt.proof = row.get::<_, Option<String>>(13)?.map(PaymentProof::new);
    attempt.acceptance = row.get(17)?;
    attempt.response = row.get(18)?;
    attempt.retry = match row.get::<_, Option<String>>(20)? {
        Some(signed) => Some((parsed(row, 19)?, signed)),
        None => None,
    };
    Ok(attempt)
}

/// Writes the row of a new attempt, and says its number.
pub(super) fn insert(
    connection: &rusqlite::Connection,
    new: &NewAttempt,
    owner: &str,
) -> rusqlite::Result<AttemptId> {
    let attempt = Attempt::reserved(AttemptId::default(), new.clone());
    let payment = serde_json::to_string(&new.payment)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare_cached(
            "INSERT INTO payment (call, event, server, identity, capability, pmi, payment_id, amount, unit, worth, \
             worth_unit, state, answer, reserved_at_ms, owner, note, payment_request, request, demand, wallet) \
             VALUES (:call, :event, :server, :identity, :capability, :pmi, :payment_id, :amount, :unit, :worth, \
             :worth_unit, :state, :answer, :at, :owner, :note, :payment_request, :request, :demand, :wallet)",
        )?
        .execute(named_params! {
            ":call": new.call.to_string(),
            ":event": new.event.to_string(),
            ":server": new.server.to_string(),
            ":identity": new.identity.to_string(),
            ":capability": new.capability,
            ":pmi": new.payment.pmi.as_str(),
            ":payment_id": new.payment.reference,
            ":amount": value(&new.payment.amount),
            ":unit": new.payment.amount.unit().as_str(),
            ":worth": new.worth.as_ref().map(value),
            ":worth_unit": new.worth.as_ref().map(|worth| worth.unit().as_str()),
            ":state": attempt.state.as_str(),
            ":answer": attempt.answer.as_str(),
            ":at": millis(new.at),
            ":owner": owner,
            ":note": attempt.note,
            ":payment_request": payment,
            ":request": new.request,
            ":demand": new.demand,
            ":wallet": new.wallet,
        })?;
    let number = u64::try_from(connection.last_insert_rowid()).unwrap_or_default();
    Ok(AttemptId::new(number))
}

/// Writes what can change in a row.
pub(super) fn update(
    connection: &rusqlite::Connection,
    attempt: &Attempt,
) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "UPDATE payment SET retry_event = :event, retry = :retry, state = :state, answer = :answer, \
             decided_at_ms = :decided, note = :note, proof = :proof, acceptance = :acceptance, response = :response \
             WHERE number = :number",
        )?
        .execute(named_params! {
            ":event": attempt.retry.as_ref().map(|(event, _)| event.to_string()),
            ":retry": attempt.retry.as_ref().map(|(_, signed)| signed),
            ":state": attempt.state.as_str(),
            ":answer": attempt.answer.as_str(),
            ":decided": attempt.decided_at.map(millis),
            ":note": attempt.note,
            ":proof": attempt.proof.as_ref().map(PaymentProof::reveal),
            ":acceptance": attempt.acceptance,
            ":response": attempt.response,
            ":number": i64::try_from(attempt.id.number()).unwrap_or(i64::MAX),
        })
}
