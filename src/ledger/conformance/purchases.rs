//! Purchases: none is begun twice, an old word never replaces a younger one, what was given back stays so, and nothing that
//! was said or used is lost or counted twice.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{client, event};
use crate::ledger::{
    Begun, OpenLimits, Purchase, PurchaseBooks, PurchaseFilter, PurchaseName, PurchaseState,
    PurchaseWord, RailNotice, Reported, Usage,
};
use crate::payment::{Amount, Timestamp, Unit};

const AT: Timestamp = Timestamp::from_secs(1_000);
const HOUR: Duration = Duration::from_secs(3600);
const LIMITS: OpenLimits = OpenLimits::new(3, 5);

/// Runs this suite. `make` returns new, empty books each time.
///
/// # Panics
///
/// When the books do not conform; the message names the rule.
pub async fn run<B, F, Fut>(make: F)
where
    B: PurchaseBooks + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<B>>,
{
    a_client_is_one_customer(make().await).await;
    money_is_allowed_for_an_account_once(make().await).await;
    a_plan_is_bought_once_at_a_time(make().await).await;
    pages_are_limited_while_they_can_be_paid(make().await).await;
    a_page_belongs_to_one_purchase(make().await).await;
    an_old_word_changes_nothing(make().await).await;
    a_clock_that_was_ahead_makes_nobody_deaf(make().await).await;
    what_is_over_stays_over(make().await).await;
    what_was_given_back_counts_again_when_more_is_paid_for(make().await).await;
    a_purchase_is_found_by_each_of_its_names(make().await).await;
    purchases_come_in_pages_oldest_first(make().await).await;
    a_notice_is_taken_in_once_and_waits_until_it_is_treated(make().await).await;
    use_is_counted_once_and_waits_until_it_is_reported(make().await).await;
    what_stands_for_money_is_not_forgotten(make().await).await;
}

fn purchase(n: u8, of: u8, plan: &str) -> Purchase {
    Purchase {
        id: event(n),
        client: client(of),
        plan: plan.to_owned(),
        amount: Some(Amount::new(999, Unit::USD_CENTS).unwrap()),
        state: PurchaseState::Open,
        status: "open".to_owned(),
        url: None,
        session: None,
        payment: None,
        subscription: None,
        customer: None,
        open_until: AT.plus(HOUR),
        held_until: None,
        withdrawn_until: None,
        made_at: AT,
        seen_at: AT,
    }
}

fn word(state: PurchaseState, secs: u64) -> PurchaseWord {
    PurchaseWord::new(
        state,
        format!("{state:?}"),
        AT.plus(Duration::from_secs(secs)),
    )
}

async fn begin<B: PurchaseBooks>(books: &B, purchase: Purchase) -> Begun {
    books.begin_purchase(purchase, LIMITS).await.unwrap()
}

async fn a_client_is_one_customer<B: PurchaseBooks + 'static>(books: Arc<B>) {
    assert_eq!(books.customer_of("a", &client(1)).await.unwrap(), None);
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let books = Arc::clone(&books);
            let name = format!("cus_{n}");
            tokio::spawn(async move { books.keep_customer("a", &client(1), &name).await.unwrap() })
        })
        .collect();
    let mut kept = Vec::new();
    for task in tasks {
        kept.push(task.await.unwrap());
    }
    kept.dedup();
    assert_eq!(kept.len(), 1, "the first stays");
    assert_eq!(
        books.customer_of("a", &client(1)).await.unwrap(),
        kept.pop()
    );
    for (account, n, name) in [("a", 2, "cus_x"), ("b", 1, "cus_y")] {
        let other = books.keep_customer(account, &client(n), name).await;
        assert_eq!(other.unwrap(), name, "each for itself");
    }
}

async fn money_is_allowed_for_an_account_once<B: PurchaseBooks>(books: Arc<B>) {
    assert_eq!(books.live_since("a").await.unwrap(), None);
    let later = AT.plus(Duration::from_secs(60));
    assert_eq!(books.allow_live("a", AT).await.unwrap(), AT);
    assert_eq!(
        books.allow_live("a", later).await.unwrap(),
        AT,
        "the first stands"
    );
    assert_eq!(books.live_since("a").await.unwrap(), Some(AT));
    assert_eq!(books.live_since("b").await.unwrap(), None);
}

async fn a_plan_is_bought_once_at_a_time<B: PurchaseBooks + 'static>(books: Arc<B>) {
    let tasks: Vec<_> = (1..=20)
        .map(|n| {
            let books = Arc::clone(&books);
            tokio::spawn(async move { begin(&*books, purchase(n, 1, "a")).await })
        })
        .collect();
    let mut begun = Vec::new();
    for task in tasks {
        if let Begun::New(purchase) = task.await.unwrap() {
            begun.push(purchase);
        }
    }
    assert_eq!(begun.len(), 1, "of twenty requests one begins");
    let first = begun.pop().unwrap();
    let standing = books.standing_purchase(&client(1), "a").await.unwrap();
    assert_eq!(standing.as_ref(), Some(&first), "everything is read back");

    let mut later = purchase(30, 1, "a");
    later.made_at = AT.plus(HOUR);
    assert_eq!(
        begin(&*books, later.clone()).await,
        Begun::New(later.clone()),
        "a page that can no longer be paid is in nobody's way"
    );
    books
        .learn_purchase(&later.id, word(PurchaseState::Held, 3700))
        .await
        .unwrap();
    let mut third = purchase(31, 1, "a");
    third.made_at = AT.plus(HOUR * 100);
    let Begun::Standing(held) = begin(&*books, third).await else {
        panic!("what is held is not bought again")
    };
    assert_eq!(held.id, later.id);
    let Begun::Standing(own) = begin(&*books, purchase(30, 1, "b")).await else {
        panic!("one request begins one purchase")
    };
    assert_eq!(own.id, later.id);
}

async fn pages_are_limited_while_they_can_be_paid<B: PurchaseBooks>(books: Arc<B>) {
    for (n, of, plan) in [(1, 1, "a"), (2, 1, "b"), (3, 1, "c")] {
        assert!(matches!(
            begin(&*books, purchase(n, of, plan)).await,
            Begun::New(_)
        ));
    }
    assert_eq!(begin(&*books, purchase(4, 1, "d")).await, Begun::Full);
    for (n, of) in [(5, 2), (6, 3)] {
        assert!(matches!(
            begin(&*books, purchase(n, of, "a")).await,
            Begun::New(_)
        ));
    }
    assert_eq!(begin(&*books, purchase(7, 4, "a")).await, Begun::Full);
    books
        .learn_purchase(&event(1), word(PurchaseState::Held, 1))
        .await
        .unwrap();
    assert!(matches!(
        begin(&*books, purchase(8, 1, "d")).await,
        Begun::New(_)
    ));
    let mut later = purchase(9, 4, "a");
    later.made_at = AT.plus(HOUR);
    assert!(matches!(begin(&*books, later).await, Begun::New(_)));
}

async fn a_page_belongs_to_one_purchase<B: PurchaseBooks>(books: Arc<B>) {
    let until = AT.plus(HOUR * 2);
    let offer = |n, session: &'static str| {
        let books = Arc::clone(&books);
        async move {
            let id = event(n);
            let offered = books.offer_purchase(&id, session, "https://x", until);
            offered.await.unwrap()
        }
    };
    assert_eq!(offer(1, "cs_1").await, None, "there is none");
    begin(&*books, purchase(1, 1, "a")).await;
    begin(&*books, purchase(2, 2, "a")).await;
    let offered = offer(1, "cs_1").await.unwrap();
    assert_eq!(offered.url.as_deref(), Some("https://x"));
    assert_eq!(offered.open_until, until);
    assert_eq!(offer(2, "cs_1").await, None, "it is another's");
    let again = offer(1, "cs_2").await.unwrap();
    assert_eq!(again.session.as_deref(), Some("cs_1"), "the first stays");
}

async fn an_old_word_changes_nothing<B: PurchaseBooks>(books: Arc<B>) {
    begin(&*books, purchase(1, 1, "a")).await;
    let learn = |word: PurchaseWord| {
        let books = Arc::clone(&books);
        async move {
            books
                .learn_purchase(&event(1), word)
                .await
                .unwrap()
                .unwrap()
        }
    };
    let mut paid = word(PurchaseState::Held, 20);
    paid.subscription = Some("sub_1".to_owned());
    paid.held_until = Some(AT.plus(HOUR * 700));
    let (held, counted) = learn(paid.clone()).await;
    assert!(counted && held.state == PurchaseState::Held && held.url.is_none());
    let (still, counted) = learn(word(PurchaseState::Lapsed, 19)).await;
    assert_eq!((still.state, counted), (PurchaseState::Held, false));
    let (still, counted) = learn(word(PurchaseState::Open, 30)).await;
    assert_eq!((still.state, counted), (PurchaseState::Held, false));
    let (lapsed, counted) = learn(word(PurchaseState::Lapsed, 21)).await;
    assert_eq!((lapsed.state, counted), (PurchaseState::Lapsed, true));
    assert_eq!(lapsed.subscription.as_deref(), Some("sub_1"), "kept");
    assert_eq!(lapsed.held_until, paid.held_until, "kept");
    let (again, _) = learn(word(PurchaseState::Held, 22)).await;
    assert_eq!(again.state, PurchaseState::Held);
    assert_eq!(books.learn_purchase(&event(9), paid).await.unwrap(), None);
}

/// The last word was written by a clock that was days ahead.
async fn a_clock_that_was_ahead_makes_nobody_deaf<B: PurchaseBooks>(books: Arc<B>) {
    begin(&*books, purchase(1, 1, "a")).await;
    let day = 86_400;
    let unseen = async |ahead: u64| {
        let mut unseen = PurchaseFilter::new(vec![], 9);
        unseen.seen_before = Some(AT);
        unseen.or_after = Some(AT.plus(Duration::from_secs(ahead)));
        books.purchases(&unseen).await.unwrap().len()
    };
    assert_eq!((unseen(0).await, unseen(60).await), (0, 0));
    for (state, secs) in [
        (PurchaseState::Held, 10 * day),
        // The clock was put right.
        (PurchaseState::Lapsed, 60),
        (PurchaseState::Held, 120),
    ] {
        let learned = books.learn_purchase(&event(1), word(state, secs)).await;
        let (now, counted) = learned.unwrap().unwrap();
        assert!(counted, "at {secs} s");
        assert_eq!(now.state, state);
        assert_eq!(unseen(3600).await, usize::from(secs > 3600), "at {secs} s");
    }
    // A word that is older by no more than a question takes is late, not another clock's.
    let late = word(PurchaseState::Lapsed, 90);
    let learned = books.learn_purchase(&event(1), late).await;
    assert!(!learned.unwrap().unwrap().1);
}

async fn what_is_over_stays_over<B: PurchaseBooks>(books: Arc<B>) {
    begin(&*books, purchase(1, 1, "a")).await;
    for state in [PurchaseState::Held, PurchaseState::Over] {
        books
            .learn_purchase(&event(1), word(state, 5))
            .await
            .unwrap();
    }
    let learned = books
        .learn_purchase(&event(1), word(PurchaseState::Held, 50))
        .await;
    let (over, counted) = learned.unwrap().unwrap();
    assert_eq!((over.state, counted), (PurchaseState::Over, false));
    assert!(
        matches!(begin(&*books, purchase(2, 1, "a")).await, Begun::New(_)),
        "it may be bought again"
    );
    let standing = books.standing_purchase(&client(1), "a").await.unwrap();
    assert_eq!(
        standing.unwrap().id,
        event(2),
        "the open one counts before what is over"
    );
}

async fn what_was_given_back_counts_again_when_more_is_paid_for<B: PurchaseBooks>(books: Arc<B>) {
    begin(&*books, purchase(1, 1, "a")).await;
    let learn = |state, secs, until: Option<u64>, withdrawn: Option<u64>| {
        let books = Arc::clone(&books);
        let mut said = word(state, secs);
        said.held_until = until.map(Timestamp::from_secs);
        said.withdrawn_until = withdrawn.map(Timestamp::from_secs);
        async move {
            let learned = books.learn_purchase(&event(1), said).await.unwrap();
            learned.unwrap().0.state
        }
    };
    let (held, lapsed) = (PurchaseState::Held, PurchaseState::Lapsed);
    assert_eq!(learn(held, 1, Some(5_000), None).await, held);
    assert_eq!(learn(lapsed, 2, None, Some(5_000)).await, lapsed);
    assert_eq!(
        learn(held, 3, Some(5_000), None).await,
        lapsed,
        "the same period"
    );
    assert_eq!(
        learn(held, 4, Some(9_000), None).await,
        held,
        "the next one"
    );
    assert_eq!(learn(held, 5, Some(9_000), None).await, held);
}

async fn a_purchase_is_found_by_each_of_its_names<B: PurchaseBooks>(books: Arc<B>) {
    begin(&*books, purchase(1, 1, "a")).await;
    books
        .offer_purchase(&event(1), "cs_1", "https://x", AT.plus(HOUR))
        .await
        .unwrap();
    let mut paid = word(PurchaseState::Held, 1);
    paid.payment = Some("pi_1".to_owned());
    paid.subscription = Some("sub_1".to_owned());
    paid.customer = Some("cus_1".to_owned());
    let learned = books.learn_purchase(&event(1), paid).await.unwrap();
    let (kept, _) = learned.unwrap();
    assert_eq!(kept.customer.as_deref(), Some("cus_1"));
    for name in [
        PurchaseName::Id(event(1)),
        PurchaseName::Session("cs_1".to_owned()),
        PurchaseName::Payment("pi_1".to_owned()),
        PurchaseName::Subscription("sub_1".to_owned()),
    ] {
        let found = books.purchase(&name).await.unwrap();
        assert_eq!(found.as_ref(), Some(&kept), "{name:?}");
    }
    for name in [
        PurchaseName::Id(event(2)),
        PurchaseName::Session("pi_1".to_owned()),
        PurchaseName::Payment(String::new()),
        PurchaseName::Subscription("' OR 1 --".to_owned()),
    ] {
        assert_eq!(books.purchase(&name).await.unwrap(), None, "{name:?}");
    }
}

async fn purchases_come_in_pages_oldest_first<B: PurchaseBooks>(books: Arc<B>) {
    for n in 1..=5 {
        let mut new = purchase(n, n, "a");
        new.made_at = AT.minus(Duration::from_secs(n.into()));
        begin(&*books, new).await;
    }
    books
        .learn_purchase(&event(3), word(PurchaseState::Held, 60))
        .await
        .unwrap();
    let mut filter = PurchaseFilter::new(vec![PurchaseState::Open], 2);
    let mut listed = Vec::new();
    loop {
        let page = books.purchases(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        filter = filter.after(last);
        listed.extend(page.into_iter().map(|purchase| purchase.id));
    }
    assert_eq!(listed, [event(5), event(4), event(2), event(1)]);
    let mut unseen = PurchaseFilter::new(vec![], 9);
    unseen.seen_before = Some(AT.plus(Duration::from_secs(60)));
    assert_eq!(books.purchases(&unseen).await.unwrap().len(), 4);
}

async fn a_notice_is_taken_in_once_and_waits_until_it_is_treated<B: PurchaseBooks>(books: Arc<B>) {
    let notice = |id: &str, secs| RailNotice {
        id: id.to_owned(),
        kind: "checkout.session.completed".to_owned(),
        object: format!("cs_{id}"),
        at: AT.plus(Duration::from_secs(secs)),
    };
    for (id, secs, new) in [("evt_2", 2, true), ("evt_1", 1, true), ("evt_2", 9, false)] {
        assert_eq!(books.take_in(notice(id, secs)).await.unwrap(), new, "{id}");
    }
    let due = books.untreated(9).await.unwrap();
    assert_eq!(due, [notice("evt_1", 1), notice("evt_2", 2)]);
    assert_eq!(books.untreated(1).await.unwrap().len(), 1);
    books.treated("evt_1").await.unwrap();
    books.treated("evt_9").await.unwrap();
    assert_eq!(books.untreated(9).await.unwrap(), [notice("evt_2", 2)]);
    assert!(
        !books.take_in(notice("evt_1", 3)).await.unwrap(),
        "still known"
    );
}

async fn use_is_counted_once_and_waits_until_it_is_reported<B: PurchaseBooks>(books: Arc<B>) {
    let usage = |n: u8, value| Usage {
        event: event(n),
        meter: "api_usage".to_owned(),
        customer: "cus_1".to_owned(),
        value,
        at: AT.plus(Duration::from_secs(n.into())),
    };
    for (n, value, new) in [(2, 5, true), (1, 1, true), (2, 7, false), (3, 1, true)] {
        assert_eq!(books.note_usage(usage(n, value)).await.unwrap(), new, "{n}");
    }
    let due = books.unreported(9).await.unwrap();
    assert_eq!(due, [usage(1, 1), usage(2, 5), usage(3, 1)]);
    books.reported(&event(1), Reported::Taken).await.unwrap();
    let refused = Reported::Refused("no_meter".to_owned());
    books.reported(&event(3), refused).await.unwrap();
    assert_eq!(books.unreported(9).await.unwrap(), [usage(2, 5)]);
    assert!(!books.note_usage(usage(1, 1)).await.unwrap(), "still known");
}

async fn what_stands_for_money_is_not_forgotten<B: PurchaseBooks>(books: Arc<B>) {
    for (n, state, paid) in [
        (1, PurchaseState::Lapsed, false),
        (2, PurchaseState::Lapsed, true),
        (3, PurchaseState::Held, true),
        (4, PurchaseState::Over, true),
        (5, PurchaseState::Open, false),
    ] {
        begin(&*books, purchase(n, n, "a")).await;
        let mut said = word(state, 1);
        said.subscription = paid.then(|| format!("sub_{n}"));
        books.learn_purchase(&event(n), said).await.unwrap();
        let notice = RailNotice {
            id: format!("evt_{n}"),
            kind: "x".to_owned(),
            object: "y".to_owned(),
            at: AT,
        };
        books.take_in(notice).await.unwrap();
        let usage = Usage {
            event: event(n),
            meter: "m".to_owned(),
            customer: "c".to_owned(),
            value: 1,
            at: AT,
        };
        books.note_usage(usage).await.unwrap();
    }
    books.treated("evt_1").await.unwrap();
    books.reported(&event(1), Reported::Taken).await.unwrap();
    let mut gone = 0;
    loop {
        match books.forget_purchases(AT.plus(HOUR)).await.unwrap() {
            0 => break,
            some => gone += some,
        }
    }
    assert_eq!(gone, 3, "a notice, a report and a page that nobody paid");
    assert_eq!(books.untreated(9).await.unwrap().len(), 4);
    assert_eq!(books.unreported(9).await.unwrap().len(), 4);
    let left = books.purchases(&PurchaseFilter::new(vec![], 9)).await;
    let left: Vec<_> = left.unwrap().into_iter().map(|p| p.id).collect();
    assert_eq!(left, [event(2), event(3), event(4), event(5)]);
}
