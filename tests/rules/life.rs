use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bowline::{Error, Listener};

/// How often in one turn of a task a call is ready. One that is always ready ends that by the budget of the task; one that
/// costs none fails here.
async fn ready_in_one_turn(mut call: impl FnMut(&mut Context<'_>) -> Poll<()>) -> usize {
    const MANY: usize = 10_000;
    let times = std::future::poll_fn(|cx| Poll::Ready((0..MANY).take_while(|_| call(cx).is_ready()).count())).await;
    assert!(times < MANY, "it is ready for ever and never yields");
    times
}

/// Makes the call anew, and polls it once.
fn once<F: Future>(cx: &mut Context<'_>, call: F) -> Poll<F::Output> {
    pin!(call).poll(cx)
}

/// rule: life-6, drain-1
#[tokio::test]
async fn an_accept_that_fails_at_once_yields_while_it_is_called_again() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    listener.group().begin_drain();
    let times = ready_in_one_turn(|cx| {
        once(cx, listener.accept()).map(|accepted| assert!(matches!(accepted.unwrap_err(), Error::Draining)))
    })
    .await;
    assert!(times > 0);
}

/// rule: life-6, tcp-5
#[test]
fn an_accept_after_the_end_of_its_runtime_is_an_error_and_yields() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let listener = first.block_on(Listener::bind("127.0.0.1:0")).unwrap();
    drop(first);
    runtime().block_on(async {
        let times = ready_in_one_turn(|cx| {
            once(cx, listener.accept()).map(|accepted| assert!(matches!(accepted.unwrap_err(), Error::Bind(_))))
        })
        .await;
        assert!(times > 0);
    });
}
