//! `licence`: issues, lists and takes back licences of our own. What is written here is read by a `serve` that runs on the
//! same ledger within seconds. Verifies public licences of anybody.

mod verify;

use std::time::Duration;

use serde_json::{Value, json};

use crate::entitlement::licence::rfc3339;
use crate::gateway::args::{LicenceCommand, LicenceFile};
use crate::gateway::config::{self, LedgerPlace};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::own_licences::{self, OwnLicences, Signed};
use crate::gateway::{keys, output, wire_up};
use crate::ledger::IssuedLicence;
use crate::payment::{Clock, SystemClock};
use crate::transport::nostr::NostrKeys;

/// Licences that are read at a time.
const PAGE: usize = 500;

pub(super) async fn run(command: &LicenceCommand) -> Outcome {
    match command {
        LicenceCommand::Issue {
            file,
            client,
            days,
            covers,
            public,
        } => issue(file, client, *days, covers, *public).await,
        LicenceCommand::Revoke { id, file } => revoke(id, file).await,
        LicenceCommand::List { file } => list(file).await,
        LicenceCommand::Verify(args) => verify::run(args).await,
        LicenceCommand::Rotate { file } => {
            let version = open(file).await?.rotate()?;
            output::remark(&format!(
                "key {version} signs from now on; licences of earlier keys still count"
            ));
            Ok(())
        }
    }
}

async fn issue(
    file: &LicenceFile,
    client: &str,
    days: u32,
    covers: &[String],
    public: bool,
) -> Outcome {
    let holder = config::client("--client", client)?;
    let capabilities = own_licences::capabilities(covers)?;
    let own = open(file).await?;
    let random = NostrKeys::generate().server_pubkey().to_string();
    let signed = match public {
        true => Signed::Publicly,
        false => Signed::Secretly,
    };
    let lives = Duration::from_secs(u64::from(days) * 86_400);
    let (issued, token) = own
        .issue(
            signed.id(&random),
            holder,
            "issued by hand".to_owned(),
            capabilities,
            (SystemClock.now(), lives),
        )
        .await?;
    if file.json {
        let mut row = row(&issued);
        row["licence"] = token.reveal().into();
        output::json(&row);
    } else {
        output::line(token.reveal());
        output::remark(&format!("licence {} for {}", issued.id, holder.short()));
    }
    Ok(())
}

async fn revoke(id: &str, file: &LicenceFile) -> Outcome {
    let own = open(file).await?;
    let taken = own.books.take_back(id, SystemClock.now()).await?;
    let Some(licence) = taken else {
        return Err(Failure::failed(format!("there is no licence {id}")));
    };
    if file.json {
        output::json(&row(&licence));
    } else {
        output::remark(&format!("licence {id} does not count any more"));
        if Signed::of(id) == Signed::Publicly {
            output::remark("`serve` publishes that on its relays, now or when it runs again");
        }
    }
    Ok(())
}

async fn list(file: &LicenceFile) -> Outcome {
    let own = open(file).await?;
    let mut after: Option<String> = None;
    loop {
        let page = own.books.issued(after.as_deref(), PAGE).await?;
        for licence in &page {
            if file.json {
                output::json(&row(licence));
            } else {
                let state = match licence.revoked {
                    Some(_) => "revoked",
                    None if licence.expires_at <= SystemClock.now() => "expired",
                    None => "counts",
                };
                let until = rfc3339(licence.expires_at);
                let covers = match licence.capabilities.as_str() {
                    "" => "everything".to_owned(),
                    covers => covers.replace('\n', ", "),
                };
                output::line(&format!(
                    "{}  {state:7}  until {}  client {}  {covers}",
                    licence.id,
                    until.split('T').next().unwrap_or_default(),
                    licence.holder.short(),
                ));
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.id.clone()),
            _ => return Ok(()),
        }
    }
}

fn row(licence: &IssuedLicence) -> Value {
    json!({
        "id": licence.id,
        "client": licence.holder,
        "purchase": licence.purchase,
        "capabilities": licence.capabilities.lines().collect::<Vec<_>>(),
        "issued_at": licence.issued_at.as_secs(),
        "expires_at": licence.expires_at.as_secs(),
        "revoked_at": licence.revoked.map(|(at, _)| at.as_secs()),
    })
}

async fn open(file: &LicenceFile) -> Outcome<OwnLicences> {
    let named = LedgerPlace::named(file.ledger.as_deref())?;
    let ledger = match named.unwrap_or_else(|| LedgerPlace::File(LedgerPlace::default_file())) {
        LedgerPlace::File(ledger) => ledger,
        _ => {
            return Err(Failure::usage(
                "--ledger: licences of our own are kept in a file, with their keys beside it",
            ));
        }
    };
    // Opening would make an empty one.
    if !ledger.is_file() {
        let shown = ledger.display();
        return Err(Failure::usage(format!(
            "--ledger: there is no ledger at {shown}"
        )));
    }
    let place = LedgerPlace::File(ledger.clone());
    let keys = keys::at_ledger(file.secret_key_file.as_deref(), None, &place)?;
    let books = wire_up::books_at(&place).await?;
    OwnLicences::beside(&ledger, &keys, &books)
}
