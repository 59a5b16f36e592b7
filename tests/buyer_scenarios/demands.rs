//! Demands that are not what they claim to be (section 3F, N-130 to N-134).

use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::payment::Clock;
use tollkeeper::testing::{HandlerScript, HostileServer, pay_req_asking};
use tollkeeper::transport::MessageChannel;
use tollkeeper::wire::{Message, Request};

use super::stage::{Stage, call, data, error, rule, sats};

/// D-34, C-42, N-133
#[tokio::test(start_paused = true)]
async fn of_many_demands_for_one_request_one_is_paid_at_most() {
    for amounts in [[1, 1_000_000, 1], [1_000_000, 1, 1], [5, 5, 5]] {
        let stage = Stage::set();
        let call = stage.call(1);
        let victim = stage.victim().await;
        for (n, amount) in amounts.into_iter().enumerate() {
            stage.demand(&victim, amount, &format!("invoice {n}")).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let accepted = json!({"amount": amounts[0], "pmi": "scripted"});
        let method = "notifications/payment_accepted";
        stage
            .server
            .notify(&victim, method, &accepted)
            .await
            .unwrap();
        stage.demand(&victim, 1, "after the acceptance").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.answer(&victim).await;
        stage.demand(&victim, 1, "after the answer").await;
        let outcome = call.await.unwrap();
        let affordable = amounts[0] <= 1000;
        assert_eq!(stage.paid().len(), usize::from(affordable), "{amounts:?}");
        assert_eq!(outcome.paid.is_some(), affordable);
    }
}

/// D-35, N-131: the same payment request, for another call, later, from whoever.
#[tokio::test(start_paused = true)]
async fn a_payment_request_is_paid_once_for_ever() {
    let stage = Stage::set();
    assert!(stage.bargain(1, 5, "one").await.paid.is_some());
    let again = stage.bargain(2, 5, "one").await;
    assert_eq!(rule(&again), "paid_before");
    assert_eq!(stage.paid(), [5]);

    // A client that was started anew, on the same books.
    let stage = Stage::on(stage.ledger, |payments| payments);
    let again = stage.bargain(3, 5, "one").await;
    assert_eq!(rule(&again), "paid_before");
    assert_eq!(stage.paid(), [0; 0]);
}

/// D-36, N-130: the amount inside counts.
#[tokio::test(start_paused = true)]
async fn a_payment_request_that_asks_for_something_else_is_not_paid() {
    let stage = Stage::set();
    for (n, (said, pay_req, named)) in [
        (1, pay_req_asking(1_000_000, "a"), "amount_differs"),
        (10, pay_req_asking(9, "b"), "amount_differs"),
        (10, pay_req_asking(0, "c"), "amount_differs"),
        (10, "asks:nonsense".to_owned(), "invalid"),
        (10, pay_req_asking(10, ""), "not_handled"),
    ]
    .into_iter()
    .enumerate()
    {
        let call = stage.call(n as u64);
        let victim = stage.victim().await;
        let offer = HostileServer::offer(said, &pay_req);
        stage.server.demand(&victim, &offer).await.unwrap();
        assert_eq!(rule(&call.await.unwrap()), named, "{pay_req}");
    }
    assert_eq!(stage.paid(), [0; 0]);
    assert!(stage.books().await.is_empty(), "nothing was even reserved");
}

/// N-130
#[tokio::test(start_paused = true)]
async fn a_payment_request_that_has_expired_is_not_paid() {
    let stage = Stage::set();
    let now = stage.clock.now().as_millis();
    for (n, (at, paid)) in [(now - 1, false), (now + 60_000, true)]
        .into_iter()
        .enumerate()
    {
        let outcome = stage.bargain(n as u64, 5, &format!("{n}@{at}")).await;
        assert_eq!(outcome.paid.is_some(), paid);
        if !paid {
            assert_eq!(rule(&outcome), "expired");
        }
    }
}

/// D-37
#[tokio::test(start_paused = true)]
async fn amounts_that_are_none_are_declined() {
    let stage = Stage::set();
    let odd = [
        json!(null),
        json!("5"),
        json!(-5),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(9_007_199_254_740_992_u64),
        json!([5]),
        json!(true),
    ];
    for (n, amount) in odd.into_iter().enumerate() {
        let call = stage.call(n as u64);
        let victim = stage.victim().await;
        let offer = HostileServer::offer(amount.clone(), "x");
        stage.server.demand(&victim, &offer).await.unwrap();
        assert_eq!(rule(&call.await.unwrap()), "malformed", "{amount}");
    }
    let call = stage.call(99);
    let victim = stage.victim().await;
    let offer = json!({"amount": 5, "pay_req": "x", "pmi": "other"});
    stage.server.demand(&victim, &offer).await.unwrap();
    assert_eq!(rule(&call.await.unwrap()), "no_wallet");
    assert_eq!(stage.paid(), [0; 0]);
}

/// D-39, N-76, C-44
#[tokio::test(start_paused = true)]
async fn nothing_is_paid_for_what_nobody_waits_for() {
    let stage = Stage::set();
    let late = stage.call_for(1, Duration::from_secs(1));
    let victim = stage.victim().await;
    assert_eq!(error(&late.await.unwrap()).code, -32001);
    stage.demand(&victim, 1, "after the time-out").await;

    let answered = stage.call(2);
    let victim = stage.victim().await;
    stage.answer(&victim).await;
    answered.await.unwrap();
    stage.demand(&victim, 1, "after the answer").await;

    let dropped = stage.call(3);
    let victim = stage.victim().await;
    dropped.abort();
    let _ = dropped.await;
    stage.demand(&victim, 1, "after it was dropped").await;

    let open = stage.call(4);
    let victim = stage.victim().await;
    let offer = HostileServer::offer(1, "for nothing");
    stage
        .server
        .demand_for_nothing(&victim, &offer)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.answer(&victim).await;
    assert!(open.await.unwrap().response.result().is_some());
    assert_eq!(stage.paid(), [0; 0]);
}

/// D-41: a wallet that fails ends the call at once; it does not keep the caller waiting for the ttl.
#[tokio::test(start_paused = true)]
async fn a_wallet_that_fails_ends_the_call_at_once() {
    for script in [
        HandlerScript::Refuse,
        HandlerScript::Fail,
        HandlerScript::CannotHandle,
    ] {
        let stage = Stage::set();
        stage.wallet.script(script);
        let begun = tokio::time::Instant::now();
        let call = stage.call(1);
        let victim = stage.victim().await;
        stage.demand(&victim, 5, "x").await;
        let outcome = call.await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{script:?}");
        assert_eq!((outcome.paid, outcome.unknown), (None, None));
    }
}

/// D-43, D-44, N-77: progress counts up, keeps the type of its token, and ends.
#[tokio::test(start_paused = true)]
async fn an_endless_ttl_keeps_nobody_waiting_for_ever() {
    for token in [json!("1"), json!(1)] {
        let stage = Stage::set();
        let params = json!({"name": "add", "_meta": {"progressToken": token}});
        let request = Request::new(1, "tools/call", &params).unwrap();
        stage.client.send(request.into()).await.unwrap();
        let victim = stage.victim().await;
        let mut offer = HostileServer::offer(5, "x");
        offer["ttl"] = json!(1_000_000_000_u64);
        stage.server.demand(&victim, &offer).await.unwrap();
        let (mut last, mut count) = (0.0, 0);
        let begun = tokio::time::Instant::now();
        while let Ok(message) =
            tokio::time::timeout(Duration::from_secs(600), stage.client.recv()).await
        {
            let Some(Message::Notification(progress)) = message else {
                panic!("{message:?}")
            };
            let params: Value = serde_json::from_str(progress.params.unwrap().get()).unwrap();
            assert_eq!(params["progressToken"], token);
            let progress = params["progress"].as_f64().unwrap();
            assert!(progress > last && progress < 1.0);
            last = progress;
            count += 1;
        }
        assert!(count > 10, "{count}");
        assert!(begun.elapsed() < Duration::from_secs(2 * 3600));
    }
}

/// What was spent is not for the server to say.
#[tokio::test(start_paused = true)]
async fn a_server_cannot_lie_about_what_was_spent() {
    let stage = Stage::set();
    stage.client.send(call(1).into()).await.unwrap();
    let victim = stage.victim().await;
    stage.demand(&victim, 5, "x").await;
    while stage.paid().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let lie = json!({"spent": {"amount": 0, "unit": "sats"}, "unknown": 1, "more": 2});
    stage.server.refuse(&victim, -32000, &lie).await.unwrap();
    let Some(Message::Response(response)) = stage.client.recv().await else {
        panic!("no response")
    };
    let error = response.error().unwrap();
    assert!(
        error.message.contains("5 sats were paid for this call"),
        "{}",
        error.message
    );
    let data: Value = serde_json::from_str(error.data.unwrap().get()).unwrap();
    assert_eq!(
        data,
        json!({"spent": {"amount": 5, "unit": "sats"}, "more": 2})
    );
}

/// Params that two parsers could read differently have no identity, so a second payment for them could not be told.
#[tokio::test(start_paused = true)]
async fn an_ambiguous_call_is_not_paid_for() {
    let stage = Stage::set();
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","n":9007199254740993}}"#;
    let Message::Request(request) = Message::parse(text).unwrap() else {
        panic!("a request")
    };
    let client = stage.client.clone();
    let call =
        tokio::spawn(async move { client.call(request, Duration::from_secs(60)).await.unwrap() });
    let victim = stage.victim().await;
    stage.demand(&victim, 5, "x").await;
    let outcome = call.await.unwrap();
    assert_eq!(rule(&outcome), "no_identity");
    assert_eq!(
        data(&outcome)["spent"],
        json!({"amount": 0, "unit": "sats"})
    );
    assert_eq!(
        stage.client.payments().budget().spending().reserved,
        sats(0)
    );
}
