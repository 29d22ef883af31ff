use super::*;

fn order() -> Order {
    let (to, path) = ("b/g".parse().expect("an address"), "hall/lock".parse().expect("a path"));
    Order { deadline: Duration::from_secs(60), ..Order::new(to, path, "unlock") }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_only_the_end_of_waiting_is_due() {
    let mut orders = Orders::default();
    let (tell, _told) = mpsc::channel(OUTCOMES);
    orders.take(1, order(), tell);
    let ends = Instant::now() + Duration::from_secs(60);
    let open = orders.open.get_mut(&1).expect("it was taken");
    // It was sent and refused for a second, and then the session was lost.
    (open.was_sent, open.not_before) = (true, Some(Instant::now() + Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(orders.due(false), Some(ends));
    assert!(orders.due(true) <= Some(Instant::now()));
}
