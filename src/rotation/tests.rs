//! Servers that share a store, at chosen times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::*;

/// A store that can lose its contents, and that can be out of reach.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    values: HashMap<String, Vec<u8>>,
    is_down: bool,
}

#[derive(Debug)]
struct Down;

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is down")
    }
}

impl StdError for Down {}

impl Store {
    fn contents(&self) -> Result<std::sync::MutexGuard<'_, Contents>, Down> {
        let contents = self.0.lock().unwrap();
        if contents.is_down { Err(Down) } else { Ok(contents) }
    }

    fn set_down(&self, is_down: bool) {
        self.0.lock().unwrap().is_down = is_down;
    }

    fn values(&self) -> HashMap<String, Vec<u8>> {
        self.0.lock().unwrap().values.clone()
    }
}

impl TicketKeyStore for Store {
    type Error = Down;

    async fn put_if_absent(&mut self, name: &str, value: &[u8], expires_in: Duration) -> Result<(), Down> {
        assert!(!expires_in.is_zero());
        self.contents()?.values.entry(name.to_owned()).or_insert_with(|| value.to_vec());
        // The task yields here, so that another server may store its key first.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn get(&mut self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Down> {
        let values = {
            let contents = self.contents()?;
            names.iter().map(|name| contents.values.get(name).cloned()).collect()
        };
        tokio::task::yield_now().await;
        Ok(values)
    }
}

const HOUR: u64 = 3600;
/// A time at which an interval begins.
const BEGIN: u64 = 480_000 * HOUR;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(BEGIN + seconds)
}

/// Rotates every hour, with tickets for three hours.
fn server(store: &Store) -> TicketRotation<Store> {
    let hours = |hours| Duration::from_secs(hours * HOUR);
    TicketRotation::new(store.clone(), "www").lifetimes(hours(3), hours(1)).unwrap()
}

/// The name of the key that seals.
fn seals(server: &TicketRotation<Store>, now: SystemTime) -> Option<[u8; 16]> {
    server.keys().set().sealing(now).map(TicketKey::name)
}

fn opens(server: &TicketRotation<Store>, name: [u8; 16]) -> bool {
    server.keys().set().keys().iter().any(|key| key.name() == name)
}

/// rule: ticket-9
#[tokio::test]
async fn the_store_decides_and_each_server_has_a_key_before_it_seals() {
    let store = Store::default();
    let mut all = [server(&store), server(&store), server(&store)];
    // All of them begin at once.
    let [a, b, c] = &mut all;
    let looked = tokio::join!(a.look_at(at(0)), b.look_at(at(0)), c.look_at(at(0)));
    assert!(looked.0.unwrap() && looked.1.unwrap() && looked.2.unwrap());
    let first = seals(a, at(0)).unwrap();
    let mut before = None;
    for hour in 0..6 {
        let now = at(hour * HOUR + 1800);
        for server in &mut all {
            // Before it looks at the store in this hour, each server already has the key that seals.
            let seals = seals(server, now).unwrap();
            assert_eq!(*before.get_or_insert(seals), seals, "{hour}");
            server.look_at(now).await.unwrap();
        }
        let seals_now = before.take().unwrap();
        assert!(all.iter().all(|server| seals(server, now) == Some(seals_now)));
        assert_eq!(seals_now == first, hour == 0);
        // A ticket of the first key is valid until three hours after the key has ended.
        assert_eq!(opens(&all[0], first), hour < 4, "{hour}");
        // The clocks of two servers may differ by less than an interval.
        assert_eq!(seals(&all[0], now - Duration::from_secs(1700)), Some(seals_now));
        assert!(seals(&all[0], now + Duration::from_secs(1800)).is_some_and(|next| next != seals_now));
    }
    let mut late = server(&store);
    late.look_at(at(5 * HOUR + 1800)).await.unwrap();
    assert_eq!(late.keys().set(), all[1].keys().set());
}

/// rule: ticket-9
#[tokio::test]
async fn servers_go_on_without_the_store_and_agree_when_it_is_back_and_empty() {
    let store = Store::default();
    let (mut a, mut b) = (server(&store), server(&store));
    a.look_at(at(0)).await.unwrap();
    b.look_at(at(0)).await.unwrap();
    let keys = a.keys().set();
    store.set_down(true);
    let mut last = None;
    for minute in [10, 20, 90] {
        let looked = a.look_at(at(minute * 60)).await;
        let told = RotationEvent::of(looked, &mut last);
        assert_eq!(told.len(), usize::from(minute == 10), "{told:?}");
        if let [event] = &told[..] {
            let expected =
                "the ticket keys in use have not changed: the store of the ticket keys cannot be reached: it is down";
            assert_eq!(event.to_string(), expected);
        }
        assert_eq!(a.keys().set(), keys);
    }
    // The newer key was stored before the failure, so it can seal during the failure until it expires.
    assert_eq!(seals(&a, at(90 * 60)), Some(keys.keys()[0].name()));
    assert_eq!(seals(&a, at(4 * HOUR)), Some(keys.keys()[0].name()));
    assert_eq!(seals(&a, at(5 * HOUR)), None);

    store.0.lock().unwrap().values.clear();
    store.set_down(false);
    let now = at(90 * 60);
    let told = RotationEvent::of(a.look_at(now).await, &mut last);
    assert!(matches!(told[..], [RotationEvent::Recovered, RotationEvent::Changed]), "{told:?}");
    b.look_at(now).await.unwrap();
    assert_eq!(a.keys().set(), b.keys().set());
    // Sessions from before are resumed, also on a server that has just started.
    let mut c = server(&store);
    c.look_at(now).await.unwrap();
    assert!(keys.keys().iter().all(|key| opens(&c, key.name())));
    assert_eq!(seals(&c, now), Some(keys.keys()[0].name()));
}

/// rule: ticket-9
#[tokio::test]
async fn after_a_time_without_the_store_no_server_seals_with_a_key_that_another_one_lacks() {
    let store = Store::default();
    let (mut a, mut b) = (server(&store), server(&store));
    a.look_at(at(0)).await.unwrap();
    b.look_at(at(0)).await.unwrap();
    let second = a.keys().set().keys()[0].name();
    // No server looks at the store during the next intervals.
    let now = at(3 * HOUR + 1800);
    assert!(a.look_at(now).await.unwrap());
    assert_eq!((seals(&a, now), seals(&b, now)), (Some(second), Some(second)));
    b.look_at(now).await.unwrap();
    assert_eq!(a.keys().set(), b.keys().set());
    let next = at(4 * HOUR);
    assert!(seals(&a, next).is_some_and(|name| name != second));
    assert_eq!(seals(&a, next), seals(&b, next));
}

/// rule: ticket-9
#[tokio::test]
async fn a_server_that_was_alone_opens_its_tickets_and_seals_with_the_key_of_the_store() {
    let (one, two) = (Store::default(), Store::default());
    let (mut a, mut b) = (server(&one), server(&two));
    a.look_at(at(0)).await.unwrap();
    b.look_at(at(0)).await.unwrap();
    let alone = seals(&a, at(0)).unwrap();
    a.store = two.clone();
    assert!(a.look_at(at(10)).await.unwrap());
    assert_eq!(seals(&a, at(10)), seals(&b, at(10)));
    assert!(opens(&a, alone) && !opens(&b, alone));
    a.look_at(at(4 * HOUR)).await.unwrap();
    assert!(!opens(&a, alone));
}

/// rule: ticket-10
#[tokio::test]
async fn a_copy_of_the_store_has_no_secret_and_a_moved_or_foreign_value_is_not_used() {
    let store = Store::default();
    let wrapped = |number: u8| server(&store).wrap_key(WrapKey::new([number; 32]));
    let (mut a, mut b) = (wrapped(1), wrapped(1));
    a.look_at(at(0)).await.unwrap();
    b.look_at(at(0)).await.unwrap();
    assert_eq!(a.keys().set(), b.keys().set());
    // Without the wrap, a value contains the key as it is.
    let plain = Store::default();
    let mut unwrapped = server(&plain);
    unwrapped.look_at(at(0)).await.unwrap();
    let contains = |store: &Store, key: &TicketKey| {
        let stored = key.to_stored("", None).unwrap();
        store.values().values().any(|value| value.windows(16).any(|part| stored.windows(16).any(|key| key == part)))
    };
    assert!(unwrapped.keys().set().keys().iter().all(|key| contains(&plain, key)));
    assert!(!a.keys().set().keys().iter().any(|key| contains(&store, key)));

    let said = |looked: Result<bool, RotationError>| looked.unwrap_err().to_string();
    let other = said(wrapped(2).look_at(at(0)).await);
    assert!(other.contains("it was wrapped with another key or for another name, or it was changed"), "{other}");
    assert!(
        said(server(&store).look_at(at(0)).await).contains("it is wrapped, and the server has no key to unwrap it")
    );
    let mut strict = TicketRotation { store: plain, ..wrapped(1) };
    assert!(said(strict.look_at(at(0)).await).contains("it is not wrapped, and this server accepts only wrapped keys"));
    assert!(strict.keys().set().keys().is_empty());

    // The values are one that belongs to another name, and some that were changed.
    let names = [a.place(BEGIN / HOUR), a.place(BEGIN / HOUR + 1)];
    let values = store.values();
    for value in [values[&names[1]].clone(), vec![1], vec![2, 0], vec![1, 1, 5], Vec::new()] {
        store.0.lock().unwrap().values.insert(names[0].clone(), value);
        let looked = said(a.look_at(at(0)).await);
        assert!(looked.contains(&format!("the value {:?}", names[0])), "{looked}");
        // The server continues to use the key that it has.
        assert_eq!(a.keys().set().keys().len(), 2);
        assert_eq!(seals(&a, at(0)), seals(&b, at(0)));
    }
}

/// rule: ticket-9
#[tokio::test(start_paused = true)]
async fn a_look_at_a_store_that_does_not_answer_ends() {
    struct Silent;
    impl TicketKeyStore for Silent {
        type Error = Down;
        async fn put_if_absent(&mut self, _: &str, _: &[u8], _: Duration) -> Result<(), Down> {
            std::future::pending().await
        }
        async fn get(&mut self, _: &[String]) -> Result<Vec<Option<Vec<u8>>>, Down> {
            std::future::pending().await
        }
    }
    let mut rotation = TicketRotation::new(Silent, "www");
    assert!(matches!(rotation.look().await, Err(RotationError::TimedOut(_))));
    let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
    let running = tokio::spawn(rotation.run(move |event| told.send(event).unwrap()));
    assert!(matches!(events.recv().await, Some(RotationEvent::Failed(_))));
    running.abort();
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let rotation = |ticket, rotation| {
        let rotation = Duration::from_secs(rotation);
        TicketRotation::new(Store::default(), "www").lifetimes(Duration::from_secs(ticket), rotation)
    };
    assert!(rotation(60, 1).is_ok() && rotation(61, 1).is_err() && rotation(60, 0).is_err());
    assert!(rotation(8 * 24 * HOUR, 24 * HOUR).is_err());
}
