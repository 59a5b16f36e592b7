//! Plays a script: buyers on one side, processes that die on the other, and the books at the end.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::time::Duration;

use nostr_sdk::prelude::Keys;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tollkeeper::ledger::Entry;

use super::books::{Sold, story};
use super::buyer::{Buyer, Group};
use super::script::Script;
use super::shop::{PATIENCE, PRICE, Shop};

/// Runs at the same time: more than the machine has cores, because most of a run is waiting.
pub(crate) static AT_ONCE: Semaphore = Semaphore::const_new(6);

const KILLED: i32 = 9;

/// After the last result a process may still come to its point.
const LINGER: Duration = Duration::from_millis(120);

/// Plays `script`; says how many of its deaths happened. A failure tells everything that is known.
pub(crate) async fn play(script: &Script) -> Result<usize, String> {
    let _slot = AT_ONCE.acquire().await.unwrap();
    let shop = Shop::new().await;
    let stories = Mutex::new(Vec::new());
    let groups = groups(script);
    let (mut served, mut started) = (0, 0);
    let buyers = (0..script.buyers).map(|number| {
        let group = &groups[if script.same_call { 0 } else { number as usize }];
        Buyer::new(&shop, script, group, number, &stories).buy()
    });
    let outcome = async {
        let shopping = futures_util::future::try_join_all(buyers);
        let deaths = live_and_die(&script.deaths, &shop, shopping, &stories, &mut started).await?;
        served = script.buyers as usize;
        shop.closed().await.map(|()| deaths)
    }
    .await;

    let mut wrongs: Vec<String> = outcome.as_ref().err().cloned().into_iter().collect();
    let entries = shop.entries(None).await;
    let at_deaths = at_deaths(&shop, started).await;
    // Without a result for everybody there is nothing to balance.
    if served > 0 {
        wrongs.extend(balance(&shop, &groups, &at_deaths, &entries));
    }
    match outcome {
        Ok(deaths) if wrongs.is_empty() => Ok(deaths),
        _ => Err(report(
            &format!(
                "TOLLKEEPER_CRASH_SCRIPT='{}'",
                serde_json::to_string(script).unwrap()
            ),
            &wrongs,
            &shop,
            &stories.into_inner().unwrap(),
            &entries,
            started,
        )),
    }
}

/// Everything that is wrong with the books of `groups`, when everybody has been served.
pub(crate) fn balance(
    shop: &Shop,
    groups: &[Group],
    at_deaths: &[(usize, Vec<Entry>)],
    entries: &[Entry],
) -> Vec<String> {
    let (mut wrongs, mut of_somebody) = (Vec::new(), 0);
    for group in groups {
        let sold = sold(shop, group, at_deaths, entries);
        of_somebody += sold.entries.len();
        wrongs.extend(sold.wrongs());
    }
    if of_somebody != entries.len() {
        wrongs.push("there is an entry that nobody asked for".to_owned());
    }
    let paid: HashSet<String> = groups
        .iter()
        .flat_map(|group| group.paid.lock().unwrap().clone())
        .collect();
    if paid != shop.paid() {
        wrongs.push("the till was paid by somebody else".to_owned());
    }
    wrongs
}

/// Who buys what.
pub(crate) fn groups(script: &Script) -> Vec<Group> {
    let shared = Keys::generate();
    let group = |call: u32, buyers: usize| Group {
        call,
        buyers,
        keys: if script.one_client || script.same_call {
            shared.clone()
        } else {
            Keys::generate()
        },
        events: Mutex::default(),
        paid: Mutex::default(),
    };
    if script.same_call {
        vec![group(0, script.buyers as usize)]
    } else {
        (0..script.buyers).map(|call| group(call, 1)).collect()
    }
}

/// The books as each of the first `started` processes left them that was killed.
pub(crate) async fn at_deaths(shop: &Shop, started: usize) -> Vec<(usize, Vec<Entry>)> {
    let mut at_deaths = Vec::new();
    for process in 0..started {
        let kept = format!("death-{process}");
        if shop.path(&kept).exists() {
            at_deaths.push((process, shop.entries(Some(&kept)).await));
        }
    }
    at_deaths
}

/// Starts process after process, each of which dies at one of `deaths`, until the `shopping` is done, and then ends the last
/// one in order. Says how many of the deaths happened.
pub(crate) async fn live_and_die<T>(
    deaths: &[String],
    shop: &Shop,
    shopping: impl Future<Output = Result<T, String>>,
    stories: &Mutex<Vec<String>>,
    started: &mut usize,
) -> Result<usize, String> {
    let mut shopping = Box::pin(shopping);
    let mut all_served = false;
    let words = shop.words();
    for (process, death) in deaths.iter().map(Some).chain([None]).enumerate() {
        *started = process + 1;
        let kill_after = death
            .and_then(|death| death.strip_prefix("kill:"))
            .map(|ms| ms.parse().unwrap());
        let point = death.filter(|_| kill_after.is_none());
        let mut serve = shop.start(process, &words, point.map(String::as_str));
        let mut killing = Box::pin({
            let mut ready = serve.ready_signal();
            async move {
                let Some(ms) = kill_after else {
                    return std::future::pending().await;
                };
                let _ = ready.wait_for(|ready| *ready).await;
                sleep(Duration::from_millis(ms)).await;
            }
        });
        let mut ended = None;
        while ended.is_none() {
            tokio::select! {
                status = serve.wait() => ended = Some(status),
                () = &mut killing => {
                    serve.kill();
                    ended = Some(serve.wait().await);
                }
                served = &mut shopping, if !all_served => {
                    served?;
                    all_served = true;
                }
                () = sleep(LINGER), if all_served => {
                    // Not before it is ready: what is asked to stop while it starts has not recovered anything.
                    serve.ready().await;
                    serve.terminate();
                    let status = serve.ends_within(PATIENCE).await;
                    ended = Some(status.ok_or("serve did not end when it was asked to")?);
                }
            }
        }
        let status = ended.unwrap();
        if status.signal() == Some(KILLED) && death.is_some() {
            stories.lock().unwrap().push(format!(
                "{:>6} ms  process {process} died",
                shop.began.elapsed().as_millis()
            ));
            shop.keep_ledger(&format!("death-{process}"));
        } else if status.success() && all_served {
            return Ok(process);
        } else {
            return Err(format!("process {process} ended with {status}"));
        }
    }
    Err("more processes died than were to die".to_owned())
}

/// Everything about the call of `group`.
pub(crate) fn sold(
    shop: &Shop,
    group: &Group,
    at_deaths: &[(usize, Vec<Entry>)],
    entries: &[Entry],
) -> Sold {
    let events: HashSet<String> = group
        .events
        .lock()
        .unwrap()
        .iter()
        .map(|id| id.to_hex())
        .collect();
    let own = |entries: &[Entry]| -> Vec<Entry> {
        entries
            .iter()
            .filter(|entry| events.contains(&entry.id.to_string()))
            .cloned()
            .collect()
    };
    let records = shop
        .records()
        .into_iter()
        .filter(|record| record.call == Some(group.call));
    Sold {
        price: PRICE,
        results: group.buyers,
        paid: group.paid.lock().unwrap().clone(),
        executed_by: records.map(|record| record.process).collect(),
        at_deaths: at_deaths
            .iter()
            .map(|(process, entries)| (*process, own(entries)))
            .collect(),
        entries: own(entries),
        interrupted: 0,
    }
}

/// Everything that is known of a run in which something is wrong; `title` says which run.
pub(crate) fn report(
    title: &str,
    wrongs: &[String],
    shop: &Shop,
    stories: &[String],
    entries: &[Entry],
    started: usize,
) -> String {
    let mut text = format!("{}\n  {title}", wrongs.join("\n"));
    text += "\n  what happened:";
    for line in stories {
        text += &format!("\n    {line}");
    }
    text += "\n  executions (process):";
    for record in shop.records() {
        text += &format!(
            "\n    {} {:?} ({})",
            record.what, record.call, record.process
        );
    }
    text += "\n  the ledger:";
    for entry in entries {
        text += &format!("\n    {}", story(entry));
    }
    for process in 0..started {
        text += &format!("\n  log of process {process}:\n    {}", shop.log(process));
    }
    text
}
