//! `wallet fake`: two wallets for development, which settle each other's invoices and forget everything when they end.
//!
//! Their connection URIs are the result of this command, so they are printed, unless they are to go to files.

use serde_json::{Value, json};

use crate::gateway::args::{FakeWalletArgs, WalletCommand};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::output::{self, Paint};
use crate::gateway::{config, home, shutdown};
use crate::payment::Unit;
use crate::rails::lightning::fake_wallet::{FakeWallet, FakeWallets};

pub(super) async fn run(command: &WalletCommand) -> Outcome {
    match command {
        WalletCommand::Fake(args) => fake(args).await,
    }
}

async fn fake(args: &FakeWalletArgs) -> Outcome {
    if args.balance.unit() != &Unit::SATS {
        return Err(Failure::usage("--balance must be in sats"));
    }
    let mut builder = FakeWallets::builder()
        .relays(config::relays(&args.relays, &[])?)
        .balance_sats(args.balance.value())
        .network(args.network);
    for text in &args.faults {
        // `seller:mute=pay_invoice` is for one wallet, `mute=pay_invoice` for both.
        let (named, fault) = match text.split_once(':') {
            Some((name, fault)) => (Some(name), fault),
            None => (None, text.as_str()),
        };
        builder = builder
            .faults(named, |faults| faults.switch(fault))
            .map_err(|error| Failure::usage(format!("--fault: {error}")))?;
    }
    if let Some(folder) = &args.dir {
        home::make_folder(folder)?;
    }
    let stop = shutdown::requested()?;
    let wallets = tokio::select! {
        started = builder.start() => started?,
        () = stop.cancelled() => return Ok(()),
    };
    output::remark(
        "These wallets are NOT MONEY: they settle each other's invoices and nobody else's, and forget \
         everything when they end.",
    );
    let wallet = |wallet| Wallet::new(wallet, args);
    let ready = Ready {
        network: args.network.as_str(),
        wallets: wallets.all().map(wallet).collect::<Outcome<_>>()?,
    };
    ready.print(args.json);
    stop.cancelled().await;
    wallets.shutdown().await;
    Ok(())
}

/// What is printed once the wallets can be asked. Other programs rely on the names and their order.
#[derive(serde::Serialize)]
#[serde(tag = "event", rename = "ready")]
struct Ready {
    network: &'static str,
    wallets: Vec<Wallet>,
}

#[derive(serde::Serialize)]
struct Wallet {
    name: String,
    #[serde(flatten)]
    place: Place,
    balance: Value,
}

/// Where the connection URI of a wallet is told.
#[derive(serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    Connection(String),
    File(String),
}

impl Ready {
    fn print(&self, as_json: bool) {
        if as_json {
            output::json(self);
            return;
        }
        let paint = Paint::stdout();
        for Wallet { name, place, .. } in &self.wallets {
            let (Place::Connection(text) | Place::File(text)) = place;
            output::line(&format!("{}  {text}", paint.bold(&format!("{name:6}"))));
        }
    }
}

impl Wallet {
    fn new(wallet: &FakeWallet, args: &FakeWalletArgs) -> Outcome<Self> {
        let uri = wallet.connection();
        let place = match &args.dir {
            None => Place::Connection(uri.reveal().to_owned()),
            Some(folder) => {
                let file = folder.join(format!("{}.nwc", wallet.name()));
                home::replace_private(&file, uri.reveal())?;
                Place::File(file.display().to_string())
            }
        };
        Ok(Self {
            name: wallet.name().to_owned(),
            place,
            balance: json!({ "amount": args.balance.value(), "unit": args.balance.unit() }),
        })
    }
}
