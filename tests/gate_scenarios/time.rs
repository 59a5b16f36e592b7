//! C-19, C-25, C-26: money against time.

use std::time::Duration;

use serde_json::json;
use tollkeeper::ledger::OpenLimits;
use tollkeeper::payment::{Clock, SystemClock, Timestamp};
use tollkeeper::testing::{Harness, ListScript, LookupScript, MintScript, RailEvent};

use super::PRICES;
use super::books::{self, kind, kinds};

const HOUR: Duration = Duration::from_secs(3600);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// C-19, D-03: paid in time, noticed 20 s late.
#[tokio::test(start_paused = true)]
async fn d_03_money_that_shows_up_twenty_seconds_late_serves_the_waiting_request() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    tokio::time::sleep(seconds(620)).await;
    books::settle(&harness, 0).await;
    assert_eq!(
        kinds(&books::now(&client).await),
        ["payment_accepted", "result"]
    );
    assert_eq!(harness.rail.minted(), 1);
    books::balance(&harness).await;
}

/// C-19 under explicit gating.
#[tokio::test(start_paused = true)]
async fn money_that_shows_up_late_is_a_grant_under_explicit_gating() {
    for late in [620, 700, 3_000] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let client = harness.client(1).explicit();
        client.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&client).await;
        tokio::time::sleep(seconds(late)).await;
        books::settle(&harness, 0).await;
        assert_eq!(kinds(&books::now(&client).await), ["payment_accepted"]);
        client.call_tool(2, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&books::now(&client).await), ["result"]);
        assert_eq!(harness.rail.minted(), 1);
        books::balance(&harness).await;
    }
}

/// D-03: before a new invoice for the same call, the old one is looked up once more.
#[tokio::test(start_paused = true)]
async fn a_caller_who_paid_unseen_is_not_asked_again() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        client.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&client).await;
        // The wallet is out of reach until past the end of the offer.
        harness.rail.on_lookup(LookupScript::Fail);
        harness.rail.settle_quietly(&harness.rail.references()[0]);
        tokio::time::sleep(seconds(640)).await;
        client.collect(books::SOON).await.unwrap();
        harness.rail.on_lookup(LookupScript::Honest);
        client.call_tool(2, "add", json!({})).await.unwrap();
        let answers = client.collect(seconds(60)).await.unwrap();
        assert!(
            answers
                .iter()
                .all(|(_, m)| !["payment_required", "-32042"].contains(&kind(m).as_str())),
            "asked again: {answers:?}"
        );
        assert_eq!(harness.executions(), 1, "explicit: {explicit}");
        books::balance(&harness).await;
    }
}

/// Nobody knows whether the offer that ended was paid: another might be paid beside it. That holds for what was asked a moment
/// ago, too.
#[tokio::test(start_paused = true)]
async fn while_nobody_knows_whether_an_offer_was_paid_there_is_no_other() {
    for script in [LookupScript::Fail, LookupScript::Hang] {
        for explicit in [false, true] {
            let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            books::now(&client).await;
            harness.rail.on_lookup(script);
            harness.rail.settle_quietly(&harness.rail.references()[0]);
            tokio::time::sleep(seconds(660)).await;
            books::now(&client).await;
            for id in [2, 3] {
                client.call_tool(id, "add", json!({})).await.unwrap();
            }
            let later = client.call_tool(4, "add", json!({})).await.unwrap();
            let mut answers = client.collect(seconds(15)).await.unwrap();
            // The same event again, as after a lost answer.
            client.send_again(&later).await.unwrap();
            answers.extend(client.collect(seconds(15)).await.unwrap());
            let answers: Vec<_> = answers.into_iter().map(|(_, m)| m).collect();
            let refused: &[&str] = match explicit {
                false => &["payment_rejected", "-32000"],
                true => &["-32043"],
            };
            assert_eq!(
                kinds(&answers),
                refused.repeat(4),
                "{script:?}: {answers:?}"
            );
            assert!(
                answers
                    .iter()
                    .all(|m| m["error"]["data"]["payment_options"].is_null()),
                "what has ended is not offered again"
            );
            assert_eq!(harness.rail.minted(), 1, "{script:?}, explicit: {explicit}");

            harness.rail.on_lookup(LookupScript::Honest);
            tokio::time::sleep(seconds(3)).await;
            client.call_tool(5, "add", json!({})).await.unwrap();
            client.collect(seconds(15)).await.unwrap();
            assert_eq!(harness.executions(), 1, "{script:?}, explicit: {explicit}");
            assert_eq!(harness.rail.minted(), 1);
            books::balance(&harness).await;
        }
    }
}

/// It is not refused for ever: when the watch of the old payment request is over, there is an offer again.
#[tokio::test(start_paused = true)]
async fn a_wallet_that_never_answers_does_not_refuse_a_call_for_ever() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    harness.rail.on_lookup(LookupScript::Fail);
    tokio::time::sleep(seconds(600) + HOUR + seconds(1)).await;
    books::now(&client).await;
    client.call_tool(2, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["payment_required"]);
}

/// A clear no leads to an offer at once, however often it was asked for.
#[tokio::test(start_paused = true)]
async fn an_offer_that_ended_unpaid_is_followed_by_another_at_once() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        client.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&client).await;
        tokio::time::sleep(seconds(600 + 30)).await;
        client.collect(Duration::from_millis(500)).await.unwrap();
        client.call_tool(2, "add", json!({})).await.unwrap();
        client.collect(Duration::from_millis(500)).await.unwrap();
        assert_eq!(harness.rail.minted(), 2, "explicit: {explicit}");
    }
}

/// D-04, D-05: errors of the wallet are not an answer.
#[tokio::test(start_paused = true)]
async fn d_04_a_wallet_that_fails_for_minutes_loses_no_payment() {
    for script in [LookupScript::Fail, LookupScript::Hang] {
        for explicit in [false, true] {
            let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            books::now(&client).await;
            harness.rail.on_lookup(script);
            tokio::time::sleep(seconds(100)).await;
            harness.rail.settle_quietly(&harness.rail.references()[0]);
            tokio::time::sleep(seconds(200)).await;
            books::now(&client).await;
            harness.rail.on_lookup(LookupScript::Honest);
            let answers = client.collect(seconds(61)).await.unwrap();
            let answers: Vec<_> = answers.into_iter().map(|(_, m)| m).collect();
            assert_eq!(
                kind(&answers[0]),
                "payment_accepted",
                "{script:?} within a minute"
            );
            books::balance(&harness).await;
        }
    }
}

/// D-05: paid before the client even has the invoice, with and without a notice.
#[tokio::test(start_paused = true)]
async fn d_05_a_payer_faster_than_the_invoice_is_seen() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    harness.rail.settle_at_once();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    let answers = books::now(&client).await;
    assert_eq!(kind(answers.last().unwrap()), "result");
    books::balance(&harness).await;
}

/// A wallet whose word is "expired" while the offer is young, and then the money: it is believed.
#[tokio::test(start_paused = true)]
async fn an_expired_invoice_that_settles_all_the_same_is_an_authorization() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        client.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&client).await;
        harness.rail.on_lookup(LookupScript::Expired);
        tokio::time::sleep(seconds(700)).await;
        harness.rail.on_lookup(LookupScript::Honest);
        books::settle(&harness, 0).await;
        books::now(&client).await;
        assert_eq!(
            books::authorizations(&harness).await,
            1,
            "explicit: {explicit}"
        );
        books::balance(&harness).await;
        client.call_tool(2, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&books::now(&client).await), ["result"]);
        books::balance(&harness).await;
    }
}

/// The contract of `payment_ttl`: an old invoice is watched for at least another hour after the offer's end.
#[tokio::test(start_paused = true)]
async fn an_unnoticed_payment_is_found_up_to_an_hour_after_the_offer() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    tokio::time::sleep(seconds(600 + 3_500)).await;
    harness.rail.settle_quietly(&harness.rail.references()[0]);
    // Old offers are looked up every five minutes.
    tokio::time::sleep(seconds(310)).await;
    assert_eq!(books::authorizations(&harness).await, 1);
    books::balance(&harness).await;
}

/// An outage of the wallet that outlasts the watch hides no payment: it is asked until it answers.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_wallet_beyond_the_watch_hides_no_payment() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    harness.rail.settle_quietly(&harness.rail.references()[0]);
    harness.rail.on_lookup(LookupScript::Fail);
    tokio::time::sleep(3 * HOUR).await;
    assert_eq!(books::authorizations(&harness).await, 0);
    harness.rail.on_lookup(LookupScript::Honest);
    tokio::time::sleep(seconds(310)).await;
    assert_eq!(books::authorizations(&harness).await, 1);
    books::balance(&harness).await;
}

/// But not for ever, and not at all once it has said no.
#[tokio::test(start_paused = true)]
async fn a_payment_that_never_came_is_not_asked_about_for_ever() {
    for (script, asked_for) in [
        (LookupScript::Fail, 9 * 24 * HOUR),
        (LookupScript::Honest, 2 * HOUR),
    ] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let client = harness.client(1);
        client.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&client).await;
        harness.rail.on_lookup(script);
        tokio::time::sleep(asked_for).await;
        let asked = questions(&harness);
        tokio::time::sleep(24 * HOUR).await;
        assert_eq!(questions(&harness), asked, "{script:?}");
    }
}

/// "… and at every start, and whenever its client comes back": even after the hour.
#[tokio::test(start_paused = true)]
async fn an_unnoticed_payment_is_found_when_its_client_comes_back_the_next_day() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        client.call_tool(1, "add", json!({})).await.unwrap();
        tokio::time::sleep(24 * HOUR).await;
        books::now(&client).await;
        harness.rail.settle_quietly(&harness.rail.references()[0]);
        client.call_tool(2, "add", json!({})).await.unwrap();
        client.collect(seconds(60)).await.unwrap();
        assert_eq!(harness.executions(), 1, "explicit: {explicit}");
        books::balance(&harness).await;
    }
}

/// As above, at a start.
#[tokio::test(start_paused = true)]
async fn an_unnoticed_payment_is_found_at_the_next_start() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    tokio::time::sleep(24 * HOUR).await;
    let left = harness.crash();
    left.rail.settle_quietly(&left.rail.references()[0]);
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .after(&left)
        .unwrap()
        .start()
        .await
        .unwrap();
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(books::authorizations(&harness).await, 1);
    books::balance(&harness).await;
}

/// C-25, D-51.
#[tokio::test(start_paused = true)]
async fn d_51_a_clock_that_jumps_an_hour_costs_nobody_a_paid_call() {
    for explicit in [false, true] {
        for ahead in [false, true] {
            let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            books::now(&client).await;
            if ahead {
                harness.clock.jump(HOUR)
            } else {
                harness.clock.jump_back(HOUR)
            }
            tokio::time::sleep(seconds(5)).await;
            books::settle(&harness, 0).await;
            tokio::time::sleep(seconds(60)).await;
            books::balance(&harness).await;
            // Time goes on, and nothing of what was paid expires.
            tokio::time::sleep(5 * HOUR).await;
            books::balance(&harness).await;
            if harness.executions() == 0 {
                client.call_tool(2, "add", json!({})).await.unwrap();
                tokio::time::sleep(seconds(60)).await;
            }
            assert_eq!(
                harness.executions(),
                1,
                "explicit: {explicit}, ahead: {ahead}"
            );
            books::balance(&harness).await;
        }
    }
}

/// C-25: a clock that was set back does not prolong the offer for the waiting request without end.
#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_keep_an_offer_alive_for_hours() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    harness.clock.jump_back(HOUR);
    client.send_again(&sent).await.unwrap();
    let again = books::now(&client).await;
    assert!(
        again[0]["params"]["ttl"].as_u64().unwrap() <= 600,
        "{again:?}"
    );
    tokio::time::sleep(seconds(700)).await;
    let ended = books::now(&client).await;
    assert_eq!(
        kinds(&ended),
        ["payment_rejected", "-32000"],
        "the caller hangs"
    );
}

/// C-26, D-08, D-49: what a wallet says about the end of its invoice.
#[tokio::test(start_paused = true)]
async fn d_08_any_expiry_of_the_wallet_gives_a_valid_ttl_and_a_grant_that_lasts() {
    let now = SystemClock.now();
    for expires in [
        None,
        Some(now.plus(seconds(30))),
        Some(now.plus(seconds(1_000_000_000))),
        Some(Timestamp::from_millis(u64::MAX)),
    ] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        harness.rail.on_mint(MintScript::Expiring(expires));
        let client = harness.client(1).explicit();
        client.call_tool(1, "add", json!({})).await.unwrap();
        let (_, required) = client.next_json().await.unwrap();
        assert_eq!(required["error"]["code"], -32042, "{expires:?}");
        let ttl = &required["error"]["data"]["payment_options"][0]["ttl"];
        if !ttl.is_null() {
            assert!(
                (1..=600).contains(&ttl.as_u64().unwrap()),
                "{expires:?}: {ttl}"
            );
        }
        books::settle(&harness, 0).await;
        tokio::time::sleep(25 * HOUR).await;
        books::now(&client).await;
        client.call_tool(2, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&books::now(&client).await), ["result"], "{expires:?}");
        books::balance(&harness).await;
    }
}

/// C-26: an invoice that is over before it begins is not sent to anybody.
#[tokio::test(start_paused = true)]
async fn an_invoice_that_has_expired_already_is_not_offered() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        harness.rail.on_mint(MintScript::Expired);
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        client.call_tool(1, "add", json!({})).await.unwrap();
        let answers = books::now(&client).await;
        assert_eq!(kind(answers.last().unwrap()), "-32000", "{answers:?}");
        assert!(answers.iter().all(|m| kind(m) != "payment_required"));
    }
}

/// D-49: a lifetime that no timer can hold is refused at the start.
#[tokio::test(start_paused = true)]
async fn d_49_a_payment_ttl_out_of_range_is_refused_at_the_start() {
    for ttl in [Duration::ZERO, seconds(86_401), Duration::MAX] {
        let started = Harness::builder(&PRICES)
            .unwrap()
            .payments(|p| p.payment_ttl(ttl))
            .start()
            .await;
        assert!(started.is_err(), "{ttl:?}");
    }
}

/// D-47, N-134: what it costs to watch does not grow with what is watched.
#[tokio::test(start_paused = true)]
async fn d_47_look_ups_do_not_grow_with_the_number_of_open_offers() {
    for open in [1, 1_000] {
        let harness = shop_with_offers(open, ListScript::Cannot).await;
        let before = questions(&harness);
        tokio::time::sleep(seconds(500)).await;
        let asked = questions(&harness) - before;
        assert!(
            asked <= 2 * 500 + 16,
            "{open} open: {asked} questions in 500 s are more than two a second"
        );
    }
}

/// A wallet that pushes nothing but lists: thousands of offers cost it one question each ten seconds and a look-up now and
/// then, and whoever pays among them is noticed within 15 s.
#[tokio::test(start_paused = true)]
async fn one_settlement_among_thousands_is_found_by_listing() {
    for script in [ListScript::Honest, ListScript::Hints] {
        let harness = shop_with_offers(3_000, script).await;
        tokio::time::sleep(seconds(60)).await;
        let before = questions(&harness);
        tokio::time::sleep(seconds(300)).await;
        let asked = questions(&harness) - before;
        assert!(asked <= 2 * 300, "{script:?}: {asked} questions in 300 s");

        let reference = harness.rail.references()[1_500].clone();
        harness.rail.settle_quietly(&reference);
        tokio::time::sleep(seconds(15)).await;
        let served = harness.executions();
        assert_eq!(served, 1, "{script:?}: noticed within 15 s");
    }
}

/// A list that fails, or never comes, hides nothing for long.
#[tokio::test(start_paused = true)]
async fn a_settlement_is_found_when_listing_breaks_and_when_it_works_again() {
    for script in [ListScript::Fail, ListScript::Hang] {
        let harness = shop_with_offers(3, ListScript::Honest).await;
        tokio::time::sleep(seconds(20)).await;
        harness.rail.on_list(script);
        let references = harness.rail.references();
        harness.rail.settle_quietly(&references[0]);
        tokio::time::sleep(seconds(30)).await;
        let served = harness.executions();
        assert_eq!(served, 1, "{script:?}: single look-ups go on");

        harness.rail.on_lookup(LookupScript::Fail);
        harness.rail.settle_quietly(&references[1]);
        tokio::time::sleep(seconds(60)).await;
        harness.rail.on_list(ListScript::Honest);
        tokio::time::sleep(seconds(60)).await;
        let served = harness.executions();
        assert_eq!(served, 2, "{script:?}: the list came back");
    }
}

/// A shop with `open` unpaid offers, on a wallet that lists as told.
async fn shop_with_offers(open: u16, script: ListScript) -> Harness {
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|p| p.limits(OpenLimits::new(10_000, 10_000)))
        .start()
        .await
        .unwrap();
    harness.rail.on_list(script);
    let clients: Vec<_> = (1..=100).map(|n| harness.client(n)).collect();
    for (n, client) in (0..open).zip(clients.iter().cycle()) {
        client
            .call_tool(n.into(), "add", json!({"n": n}))
            .await
            .unwrap();
    }
    harness.rail.wait_for_minted(open.into()).await;
    harness
}

/// How many questions about settlements the wallet was asked.
fn questions(harness: &Harness) -> usize {
    harness
        .rail
        .log()
        .iter()
        .filter(|e| matches!(e, RailEvent::LookedUp(_) | RailEvent::Listed(_)))
        .count()
}
