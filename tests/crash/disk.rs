//! A ledger that cannot be written, or not be read: nothing priced is served for free, nothing free is held up, and what
//! was paid meanwhile is served when the ledger is back.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nostr_sdk::prelude::{Event, EventBuilder, Keys, Kind, Tag};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::buyer::Buyer;
use super::run::{balance, groups};
use super::script::{Lifecycle, Script};
use super::shop::{PATIENCE, Serve, Shop};

/// What is wrong with the ledger while it lasts.
trait Fault {
    /// The command line of `serve`, prepared for it.
    fn words(&self, shop: &Shop) -> Vec<String> {
        shop.words()
    }

    fn begin(&self, shop: &Shop, serve: &Serve);

    fn end(&self, shop: &Shop, serve: &Serve);
}

/// Files of the process, its log included, cannot grow: writes fail with `EFBIG`.
struct SizeLimit;

#[cfg(target_os = "linux")]
impl SizeLimit {
    fn set(serve: &Serve, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(i32::try_from(serve.id().unwrap()).unwrap());
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(pid, Resource::Fsize, limit).unwrap();
    }
}

#[cfg(target_os = "linux")]
impl Fault for SizeLimit {
    fn words(&self, shop: &Shop) -> Vec<String> {
        // The signal that goes with the error would end the process; a full disk comes without it.
        let ignoring = ["bash", "-c", r#"trap "" XFSZ; exec "$@""#, "-"];
        ignoring
            .iter()
            .map(ToString::to_string)
            .chain(shop.words())
            .collect()
    }

    fn begin(&self, _shop: &Shop, serve: &Serve) {
        Self::set(serve, Some(64));
    }

    fn end(&self, _shop: &Shop, serve: &Serve) {
        Self::set(serve, None);
    }
}

/// Another process writes and does not come to an end.
struct Lock(Mutex<Option<Connection>>);

impl Lock {
    fn hold(file: &Path) -> Connection {
        let connection = Connection::open(file).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }
}

impl Fault for Lock {
    fn begin(&self, shop: &Shop, _serve: &Serve) {
        *self.0.lock().unwrap() = Some(Self::hold(&shop.path("books.db")));
    }

    fn end(&self, _shop: &Shop, _serve: &Serve) {
        *self.0.lock().unwrap() = None;
    }
}

/// A small disk of its own, and something else that takes all its room: writes fail with `ENOSPC`.
struct FullDisk;

/// Ends with the test, however that ends.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// `None` where this user may not mount anything.
    fn at(folder: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir(&folder).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let mounted = Command::new("mount").args(mount).arg(&folder).output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Fault for FullDisk {
    fn words(&self, shop: &Shop) -> Vec<String> {
        let words = shop.words().into_iter();
        words
            .map(|word| {
                if word == "books.db" {
                    "disk/books.db".to_owned()
                } else {
                    word
                }
            })
            .collect()
    }

    fn begin(&self, shop: &Shop, _serve: &Serve) {
        // To the last byte, as others write too.
        for size in [4096, 1] {
            let file = shop.path(&format!("disk/filler-{size}"));
            let mut filler = std::fs::File::create(file).unwrap();
            while std::io::Write::write_all(&mut filler, &vec![0; size]).is_ok() {}
        }
    }

    fn end(&self, shop: &Shop, _serve: &Serve) {
        for size in [4096, 1] {
            std::fs::remove_file(shop.path(&format!("disk/filler-{size}"))).unwrap();
        }
    }
}

/// Calls the free tool, and waits for its result.
async fn free_call(shop: &Shop) -> Value {
    let keys = Keys::generate();
    let content = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "free"}},
    });
    let event: Event = EventBuilder::new(Kind::from(25910), content.to_string())
        .tag(Tag::public_key(shop.keys.public_key()))
        .sign_with_keys(&keys)
        .unwrap();
    shop.relay.inject(&event);
    let answer = shop
        .relay
        .wait_for_message(PATIENCE, &keys, |message| message["id"] == 1);
    serde_json::from_str(&answer.await.expect("an answer to a free call").content).unwrap()
}

/// Waits until it is so.
async fn until(shop: &Shop, what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "waited in vain until {what}\n{}",
            shop.log(0)
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// One buyer is served before. The second has its offer when the fault begins, and pays while it lasts. The third comes
/// while it lasts. Everybody is served once it is over, and the books balance.
async fn nothing_is_served_unpaid_and_everything_paid_is_served_later(
    fault: impl Fault,
    ledger: &str,
) {
    let (shop, stories) = (Shop::new().await, Mutex::default());
    nothing_is_served_unpaid(&shop, &stories, fault, ledger).await;
}

async fn nothing_is_served_unpaid(
    shop: &Shop,
    stories: &Mutex<Vec<String>>,
    fault: impl Fault,
    ledger: &str,
) {
    let quick = Script::new(Lifecycle::Transparent, 3, &[]);
    let slow = Script {
        pay_ms: 1000,
        ..quick.clone()
    };
    let groups = groups(&quick);
    let mut serve = shop.start(0, &fault.words(shop), None);
    assert!(serve.ready().await, "{}", shop.log(0));
    Buyer::new(shop, &quick, &groups[0], 0, stories)
        .buy()
        .await
        .unwrap();

    let second = Buyer::new(shop, &slow, &groups[1], 1, stories).buy();
    let third = Buyer::new(shop, &quick, &groups[2], 2, stories);
    let executions = |call| {
        shop.records()
            .iter()
            .filter(|record| record.call == Some(call))
            .count()
    };
    let refusals = || {
        let stories = stories.lock().unwrap();
        stories
            .iter()
            .filter(|line| line.contains("buyer 2") && line.contains("Payments are unavailable"))
            .count()
    };
    let began = tokio::sync::Notify::new();
    let meanwhile = async {
        let is_offer = |message: &Value| message["method"] == "notifications/payment_required";
        shop.relay
            .wait_for_message(PATIENCE, &groups[1].keys, is_offer)
            .await
            .unwrap();
        fault.begin(shop, &serve);
        began.notify_one();
        until(shop, "the third is refused", || refusals() > 0).await;
        until(shop, "the second has paid", || shop.paid().len() == 2).await;
        let free = free_call(shop).await;
        assert_eq!(free["result"]["content"][0]["text"], "free");
        // Long enough for the payment to be noticed.
        sleep(Duration::from_secs(2)).await;
        assert_eq!(
            (executions(1), executions(2)),
            (0, 0),
            "executed without a settled entry"
        );
        assert_eq!(
            shop.invoices(),
            2,
            "an offer that could not be written down was made"
        );
        fault.end(shop, &serve);
    };
    let third = async {
        began.notified().await;
        third.buy().await
    };
    let (second, third, ()) = tokio::join!(second, third, meanwhile);
    let told = || format!("{}\n{}", stories.lock().unwrap().join("\n"), shop.log(0));
    assert_eq!((second, third), (Ok(()), Ok(())), "{}", told());
    serve.terminate();
    let status = serve.ends_within(PATIENCE).await.unwrap();
    assert!(status.success(), "{status} {}", told());
    let entries = shop.entries_of(&shop.path(ledger)).await;
    assert_eq!(
        balance(shop, &groups, &[], &entries),
        [] as [String; 0],
        "{}",
        told()
    );
    let executed: Vec<usize> = (0..3).map(executions).collect();
    assert_eq!(executed, [1, 1, 1]);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_grow_stops_priced_calls_until_it_can() {
    nothing_is_served_unpaid_and_everything_paid_is_served_later(SizeLimit, "books.db").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_somebody_else_holds_stops_priced_calls_until_he_lets_go() {
    nothing_is_served_unpaid_and_everything_paid_is_served_later(
        Lock(Mutex::default()),
        "books.db",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_priced_calls_until_there_is_room() {
    let (shop, stories) = (Shop::new().await, Mutex::default());
    let Some(_mounted) = Mounted::at(shop.path("disk")) else {
        println!("skipped: this user may not mount a small disk");
        return;
    };
    nothing_is_served_unpaid(&shop, &stories, FullDisk, "disk/books.db").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_somebody_else_holds_does_not_hold_up_the_end() {
    let (shop, stories) = (Shop::new().await, Mutex::default());
    let script = Script::new(Lifecycle::Transparent, 1, &[]);
    let groups = groups(&script);
    let mut serve = shop.start(0, &shop.words(), None);
    assert!(serve.ready().await);
    let held = Lock::hold(&shop.path("books.db"));
    let asked = async {
        // The write of this call waits for the lock when the end is asked for.
        until(&shop, "there is a call", || {
            !groups[0].events.lock().unwrap().is_empty()
        })
        .await;
        sleep(Duration::from_millis(500)).await;
        let asked = Instant::now();
        serve.terminate();
        let status = serve.ends_within(PATIENCE).await.unwrap();
        (status, asked.elapsed())
    };
    let buyer = Buyer::new(&shop, &script, &groups[0], 0, &stories).buy();
    let (status, took) = tokio::select! {
        ended = asked => ended,
        bought = buyer => panic!("{bought:?}"),
    };
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(held);
    assert_eq!(shop.entries(None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_stops_nothing() {
    for lifecycle in [Lifecycle::Transparent, Lifecycle::ExplicitGating] {
        let (shop, stories) = (Shop::new().await, Mutex::default());
        let script = Script::new(lifecycle, 1, &[]);
        let groups = groups(&script);
        let unheard = ["bash", "-c", r#"exec "$@" 2> >(exit)"#, "-"];
        let words: Vec<String> = unheard
            .iter()
            .map(ToString::to_string)
            .chain(shop.words())
            .collect();
        let mut serve = shop.start(0, &words, None);
        assert!(serve.ready().await);
        let bought = Buyer::new(&shop, &script, &groups[0], 0, &stories)
            .buy()
            .await;
        assert_eq!(bought, Ok(()), "{}", stories.lock().unwrap().join("\n"));
        serve.terminate();
        assert!(serve.wait().await.success());
        assert_eq!(
            balance(&shop, &groups, &[], &shop.entries(None).await),
            [] as [String; 0]
        );
    }
}

/// Starts `serve` on this file, which must not work, and says what it says.
async fn refused(shop: &Shop) -> String {
    let mut serve = shop.start(9, &shop.words(), None);
    assert!(
        !serve.ready().await,
        "it must not take calls: {}",
        shop.log(9)
    );
    let status = serve.wait().await;
    assert_eq!(status.code(), Some(1), "{}", shop.log(9));
    let log = shop.log(9);
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        !log.contains(shop.path("").to_str().unwrap()),
        "no path: {log}"
    );
    log
}

/// A ledger in which somebody has bought something.
async fn sold_once(shop: &Shop) {
    let stories = Mutex::default();
    let script = Script::new(Lifecycle::Transparent, 1, &[]);
    let mut serve = shop.start(0, &shop.words(), None);
    assert!(serve.ready().await);
    Buyer::new(shop, &script, &groups(&script)[0], 0, &stories)
        .buy()
        .await
        .unwrap();
    serve.terminate();
    serve.wait().await;
    // Opened and closed in order, so that all of it is in the one file: a log beside it would repair what is damaged.
    assert_eq!(shop.entries(None).await.len(), 1);
    assert!(!shop.path("books.db-wal").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_is_refused_at_the_start() {
    let shop = Shop::new().await;
    sold_once(&shop).await;
    let file = shop.path("books.db");
    let sound = std::fs::read(&file).unwrap();

    let mut damaged = sound.clone();
    damaged[..16].copy_from_slice(b"this is no books");
    let cut = sound[..sound.len() / 2].to_vec();
    let mut overwritten = sound.clone();
    for page in overwritten.chunks_mut(4096).skip(1) {
        page[..64].fill(0xa5);
    }
    for bytes in [damaged, cut, overwritten] {
        std::fs::write(&file, &bytes).unwrap();
        let said = refused(&shop).await;
        assert!(said.contains("damaged or not a database"), "{said}");
        assert_eq!(
            std::fs::read(&file).unwrap().len(),
            bytes.len(),
            "it is left as it is, for a repair"
        );
    }

    std::fs::write(&file, sound).unwrap();
    let mut serve = shop.start(1, &shop.words(), None);
    assert!(serve.ready().await, "{}", shop.log(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_may_only_be_read_is_refused_at_the_start() {
    let shop = Shop::new().await;
    sold_once(&shop).await;
    let file = shop.path("books.db");
    let mut permissions = file.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&file, permissions).unwrap();
    let said = refused(&shop).await;
    assert!(said.contains("read-only"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_somebody_else_holds_for_long_is_refused_at_the_first_start() {
    let shop = Shop::new().await;
    // A new ledger has to be written before anything can be sold.
    let held = Connection::open(shop.path("books.db")).unwrap();
    held.execute_batch("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE")
        .unwrap();
    let said = refused(&shop).await;
    assert!(said.contains("another process holds the ledger"), "{said}");
    drop(held);
    let mut serve = shop.start(1, &shop.words(), None);
    assert!(serve.ready().await, "{}", shop.log(1));
}
