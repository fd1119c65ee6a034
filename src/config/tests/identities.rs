//! Several identities: which one a client gets, and the mistakes in a directory of them.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::handshake::handshake;
use super::{ConfigProblem, Identity, ServerTls, WarningKind, kinds, problem, write};
use crate::testing::pki::{self, Pki, Profile};

fn of(identity: &pki::Identity) -> Identity {
    Identity::pem(identity.chain_pem(), identity.key_pem())
}

/// The certificate that a client gets which asks for this name.
fn served(tls: &ServerTls, name: &str) -> Vec<u8> {
    let client = super::ClientTls::builder().dangerous_no_verification().build().unwrap();
    handshake(tls, &client, name).unwrap().peer_certificate()
}

/// rule: identity-1
/// rule: identity-2
#[test]
fn the_name_that_a_client_asks_for_chooses() {
    let pki = Pki::new();
    let first = pki.server(&["first.example", "127.0.0.1"]);
    let wild = pki.server(&["*.Wild.example", "xn--bcher-kva.example"]);
    let exact = pki.server(&["www.wild.example", "wild.example"]);
    let tls = ServerTls::builder().add_identity(of(&first)).add_identity(of(&wild)).add_identity(of(&exact));
    let tls = tls.build().unwrap();
    let cases = [
        ("first.example", &first),
        ("FIRST.Example", &first),
        ("a.wild.example", &wild),
        ("A.WILD.EXAMPLE.", &wild),
        ("www.wild.example", &exact),
        ("wild.example", &exact),
        ("xn--bcher-kva.example", &wild),
        ("XN--BCHER-KVA.example", &wild),
        ("a.b.wild.example", &first),
        ("unknown.example", &first),
        ("example", &first),
        ("127.0.0.1", &first),
    ];
    for (name, expected) in cases {
        assert_eq!(served(&tls, name), expected.cert_der().to_vec(), "{name}");
    }
    let names: Vec<_> = tls.identities().iter().map(|identity| identity.name.to_string()).collect();
    assert_eq!(names, ["first.example", "*.wild.example", "www.wild.example"]);
    assert_eq!(tls.own_certificates().unwrap()[0], first.cert_der());
}

/// rule: identity-2
#[test]
fn the_default_is_the_first_identity_or_the_one_that_was_chosen() {
    let pki = Pki::new();
    let (a, b) = (pki.server(&["a.example"]), pki.server(&["b.example"]));
    let both = ServerTls::builder().add_identity(of(&b).label("second")).identity_pem(a.chain_pem(), a.key_pem());
    let tls = both.clone().build().unwrap();
    assert_eq!(served(&tls, "c.example"), a.cert_der().to_vec());
    let tls = both.clone().default_identity("second").build().unwrap();
    assert_eq!(served(&tls, "c.example"), b.cert_der().to_vec());
    assert_eq!(served(&tls, "a.example"), a.cert_der().to_vec());
    let defaults: Vec<_> = tls.identities().iter().map(|identity| identity.is_default).collect();
    assert_eq!(defaults, [false, true]);
    assert_eq!(tls.own_certificates().unwrap()[0], b.cert_der());

    let error = both.default_identity("third").build().unwrap_err().to_string();
    assert_eq!(error, r#"the default identity "third" is none of "a.example", "second""#);
}

/// rule: identity-1
#[test]
fn names_can_be_given_and_are_checked() {
    let pki = Pki::new();
    let (a, b) = (pki.server(&["a.example"]), pki.server(&["b.example"]));
    let with = |names: &[&str]| ServerTls::builder().add_identity(of(&a)).add_identity(of(&b).names(names.to_vec()));
    let tls = with(&["Other.example.", "*.other.example"]).build().unwrap();
    assert_eq!(tls.identities()[1].server_names, ["other.example", "*.other.example"]);
    for name in ["other.example", "x.other.example"] {
        assert_eq!(served(&tls, name), b.cert_der().to_vec(), "{name}");
    }
    assert_eq!(served(&tls, "b.example"), a.cert_der().to_vec());
    for (bad, why) in [("", "neither"), ("b\u{fc}cher.example", "xn--"), ("w*.example", "wildcard"), ("*", "wildcard")]
    {
        let error = problem(with(&[bad]).build().unwrap_err());
        assert!(matches!(&error.problem, ConfigProblem::Contradiction(text) if text.contains(why)), "{error}");
    }
}

/// rule: identity-1
#[test]
fn a_name_of_two_identities_and_an_identity_that_nobody_gets_are_warnings() {
    let pki = Pki::new();
    let (a, twin) = (pki.server(&["a.example"]), pki.server(&["a.example"]));
    let (other_key, nameless) = (Profile::server(&["a.example"]).key(pki::KeyKind::Ed25519), pki.server(&["10.0.0.1"]));
    let other_key = pki.issue(other_key);
    let build = |all: &[&pki::Identity]| {
        all.iter().fold(ServerTls::builder(), |builder, identity| builder.add_identity(of(identity))).build().unwrap()
    };
    let tls = build(&[&a, &twin]);
    assert_eq!(kinds(tls.warnings()), [WarningKind::SharedName]);
    assert_eq!(
        tls.warnings()[0].to_string(),
        r#"a.example is a name of the identity "a.example" too, which is used for it"#
    );
    assert_eq!(tls.identities()[1].name.as_ref(), "a.example #2");
    assert_eq!(kinds(build(&[&a, &other_key]).warnings()), []);
    assert_eq!(kinds(build(&[&a, &nameless]).warnings()), [WarningKind::NeverUsed]);
    assert_eq!(kinds(build(&[&nameless, &a]).warnings()), []);
    let twice = ServerTls::builder().add_identity(of(&a).label("x")).add_identity(of(&twin).label("x"));
    assert_eq!(twice.build().unwrap_err().to_string(), r#"two identities have the name "x""#);
}

/// rule: identity-3
#[test]
fn the_expiry_of_each_identity_can_be_read() {
    let pki = Pki::new();
    let (good, old) = (pki.server(&["a.example"]), pki.issue(Profile::server(&["b.example"]).expired()));
    let tls = ServerTls::builder().add_identity(of(&good)).add_identity(of(&old)).build().unwrap();
    let now = std::time::SystemTime::now();
    let [good, old] = &tls.identities()[..] else { panic!() };
    assert!(good.not_before.unwrap() < now && now < good.not_after.unwrap());
    assert!(old.not_after.unwrap() < now);
    assert_eq!(kinds(tls.warnings()), [WarningKind::Expired]);
    assert!(ServerTls::from(tls.config()).identities().is_empty());
}

fn put(dir: &Path, chain: &str, key: &str, identity: &pki::Identity) {
    fs::create_dir_all(dir.join(chain).parent().unwrap()).unwrap();
    fs::write(dir.join(chain), identity.chain_pem()).unwrap();
    fs::write(dir.join(key), identity.key_pem()).unwrap();
}

fn names(tls: &ServerTls) -> Vec<String> {
    tls.identities().iter().map(|identity| identity.name.to_string()).collect()
}

/// rule: identity-5
#[test]
fn a_directory_holds_pairs_and_folders_and_the_first_by_name_is_the_default() {
    let pki = Pki::new();
    let identity = |name: &str| pki.server(&[name]);
    let dir = TempDir::new().unwrap();
    let (b, c) = (identity("b.example"), identity("c.example"));
    put(dir.path(), "c.pem", "c.key", &c);
    put(dir.path(), "b/tls.crt", "b/tls.key", &b);
    put(dir.path(), "tls.crt", "tls.key", &identity("own.example"));
    put(dir.path(), ".hidden.pem", ".hidden.key", &identity("hidden.example"));
    put(dir.path(), "..hidden/tls.crt", "..hidden/tls.key", &identity("hidden.example"));
    write(&dir, "ca.pem", pki.ca_pem());
    write(&dir, "README", "no identity");
    fs::create_dir(dir.path().join("empty")).unwrap();
    let tls = ServerTls::builder().identities_dir(dir.path()).build().unwrap();
    assert_eq!(names(&tls), ["b", "c", "tls"]);
    assert!(tls.identities()[0].is_default);
    assert_eq!(served(&tls, "c.example"), c.cert_der().to_vec());
    assert_eq!(served(&tls, "other.example"), b.cert_der().to_vec());
    assert_eq!(kinds(tls.warnings()), [WarningKind::NotAnIdentity]);
    let expected =
        format!("{}: it is no identity, because there is no ca.key beside it", dir.path().join("ca.pem").display());
    assert_eq!(tls.warnings()[0].to_string(), expected);

    let first = identity("first.example");
    let tls = ServerTls::builder().identity_pem(first.chain_pem(), first.key_pem()).identities_dir(dir.path());
    assert_eq!(names(&tls.build().unwrap()), ["first.example", "b", "c", "tls"]);
}

/// rule: identity-5
#[test]
fn a_mistake_in_a_directory_names_the_file() {
    let pki = Pki::new();
    let identity = pki.server(&[]);
    let mistake = |make: &dyn Fn(&Path)| {
        let dir = TempDir::new().unwrap();
        make(dir.path());
        let error = problem(ServerTls::builder().identities_dir(dir.path()).build().unwrap_err());
        let text = crate::chain(&error).to_string();
        text.replace(dir.path().to_str().unwrap(), "DIR").replace('\\', "/")
    };
    assert_eq!(
        mistake(&|_| ()),
        "DIR: a server needs a certificate and its private key: there is neither NAME.pem with NAME.key beside it, nor a \
         folder with tls.crt and tls.key"
    );
    let crt_alone = |dir: &Path| write_in(dir, "a/tls.crt", identity.chain_pem());
    assert_eq!(
        mistake(&crt_alone),
        "DIR/a/tls.key: cannot be read: its certificate is there, and the private key is missing"
    );
    let key_alone = |dir: &Path| write_in(dir, "a/tls.key", identity.key_pem());
    assert_eq!(mistake(&key_alone), "DIR/a/tls.crt: cannot be read: tls.key is there, and its certificate is missing");
    let twice = |dir: &Path| {
        put(dir, "a.pem", "a.key", &identity);
        put(dir, "a/tls.crt", "a/tls.key", &identity);
    };
    let found = mistake(&twice);
    assert!(found.starts_with("DIR: ") && found.ends_with(" are both the identity \"a\""), "{found}");
    let other_key = |dir: &Path| {
        put(dir, "a.pem", "a.key", &identity);
        write_in(dir, "a.key", pki.server(&[]).key_pem());
    };
    assert_eq!(mistake(&other_key), "DIR/a.key: the private key belongs to another certificate");
    let broken = |dir: &Path| {
        put(dir, "a.pem", "a.key", &identity);
        write_in(dir, "a.pem", &format!("# comment\n{}", identity.chain_pem().replacen("MII", "M?I", 1)));
    };
    let found = mistake(&broken);
    assert!(found.starts_with("DIR/a.pem: line 3: not valid PEM"), "{found}");
    let error = problem(ServerTls::builder().identities_dir("/no/such").build().unwrap_err());
    assert_eq!(error.file.unwrap(), Path::new("/no/such"));
}

fn write_in(dir: &Path, name: &str, text: &str) {
    fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
    fs::write(dir.join(name), text).unwrap();
}

/// A volume as Kubernetes mounts it: the files are links through `..data`, which is a link to the revision.
#[cfg(unix)]
pub(super) fn volume(dir: &Path, revision: &str, identity: &pki::Identity) {
    use std::os::unix::fs::symlink;
    put(dir, &format!("{revision}/tls.crt"), &format!("{revision}/tls.key"), identity);
    let new = dir.join("..data_tmp");
    symlink(revision, &new).unwrap();
    fs::rename(&new, dir.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        if dir.join(name).symlink_metadata().is_err() {
            symlink(format!("..data/{name}"), dir.join(name)).unwrap();
        }
    }
}

/// Kubernetes first changes the link to the revision, then adds and removes the links of its files.
///
/// rule: identity-6
#[cfg(unix)]
#[test]
fn the_links_of_a_volume_do_not_say_which_files_are_in_its_revision() {
    use std::os::unix::fs::symlink;
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    volume(dir.path(), "..0", &pki.server(&["a.example"]));
    put(dir.path(), "..0/new.pem", "..0/new.key", &pki.server(&["new.example"]));
    for gone in ["gone.pem", "gone.key", "sub"] {
        symlink(format!("..data/{gone}"), dir.path().join(gone)).unwrap();
    }
    put(dir.path(), "mounted.pem", "mounted.key", &pki.server(&["mounted.example"]));
    let tls = ServerTls::builder().identities_dir(dir.path()).build().unwrap();
    assert_eq!(names(&tls), ["mounted", "new", "tls"]);
    assert_eq!(kinds(tls.warnings()), []);
}

/// rule: identity-6
#[cfg(unix)]
#[test]
fn the_files_of_a_volume_are_from_one_revision() {
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    let both = [pki.server(&["a.example"]), pki.server(&["b.example"])];
    for place in [dir.path().to_owned(), dir.path().join("inner")] {
        fs::create_dir_all(&place).unwrap();
        volume(&place, "..0", &both[0]);
    }
    let tls = ServerTls::builder().identities_dir(dir.path()).build().unwrap();
    assert_eq!(names(&tls), ["inner", "tls"]);
    // The warning names the file that was read.
    assert_eq!(kinds(tls.warnings()), [WarningKind::SharedName]);
    assert_eq!(tls.warnings()[0].file, Some(dir.path().canonicalize().unwrap().join("..0/tls.crt")));
    // While one thread replaces the revision again and again, no mixed pair is read, and no file is missing.
    let inner = dir.path().join("inner");
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for number in 1..200 {
                volume(&inner, &format!("..{number}"), &both[number % 2]);
                if number >= 8 {
                    fs::remove_dir_all(inner.join(format!("..{}", number - 8))).unwrap();
                }
            }
        });
        while !swaps.is_finished() {
            ServerTls::builder().identities_dir(&inner).build().unwrap();
        }
    });
}

/// A revision contains an identity and the CA for clients, and is replaced after the identity was read.
///
/// rule: reload-4, identity-6
#[cfg(unix)]
#[test]
fn an_identity_and_a_ca_in_one_volume_are_from_one_revision() {
    use std::os::unix::fs::symlink;

    use crate::config::directory::Directory;
    use crate::config::volume::Volumes;
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    let mounted = dir.path().to_owned();
    // The identities are in the volume itself in the first round, and in a folder of it in the second one.
    for inner in [mounted.clone(), mounted.join("sub")] {
        let put_revision = |revision: &str| {
            volume(&mounted, revision, &pki.server(&["a.example"]));
            let place = mounted.join(revision);
            put(&place, "sub/tls.crt", "sub/tls.key", &pki.server(&["a.example"]));
            fs::write(place.join("ca.crt"), revision).unwrap();
        };
        put_revision("..0");
        for name in ["sub", "ca.crt"] {
            let _ = symlink(format!("..data/{name}"), mounted.join(name));
        }
        let mut volumes = Volumes::default();
        let listed = Directory::list(&inner, &mut volumes).unwrap();
        let read: Vec<_> = listed.identities().map(|identity| identity.in_memory(&mut volumes)).collect();
        assert!(!read.is_empty() && read.iter().all(Result::is_ok), "{read:?}");
        put_revision("..1");
        let ca = volumes.place(&mounted.join("ca.crt"));
        assert_eq!(fs::read_to_string(ca).unwrap(), "..0", "{}", inner.display());
    }
}
