//! The messages of SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), as far as the tests need them.

use sha2::{Digest, Sha256};

const ITERATIONS: u32 = 4096;

pub(crate) type Hash = [u8; 32];

fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

fn hmac(key: &[u8], message: &[u8]) -> Hash {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    sha256(&[&pad(0x5c)[..], &sha256(&[&pad(0x36), message].concat())].concat())
}

fn xor(a: &Hash, b: &Hash) -> Hash {
    std::array::from_fn(|n| a[n] ^ b[n])
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let all = chunk.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let sextet = (all >> (18 - 6 * n)) as usize & 63;
            out.push(if n <= chunk.len() { ALPHABET[sextet].into() } else { '=' });
        }
    }
    out
}

fn from_base64(text: &str) -> Vec<u8> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::new();
    let (mut all, mut bits) = (0_u32, 0);
    for byte in text.bytes() {
        all = all << 6 | ALPHABET.iter().position(|known| *known == byte).unwrap() as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((all >> bits) as u8);
        }
    }
    out
}

/// PBKDF2 with one block.
fn salted(password: &str, salt: &[u8], iterations: u32) -> Hash {
    let mut turn = hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let mut sum = turn;
    for _ in 1..iterations {
        turn = hmac(password.as_bytes(), &turn);
        sum = xor(&sum, &turn);
    }
    sum
}

/// The value of a field, such as `r=`.
fn field<'a>(message: &'a str, name: &str) -> &'a str {
    message.split(',').find_map(|field| field.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {message}"))
}

const GS2: &str = "p=tls-server-end-point,,";

/// The client's side.
pub(crate) struct Client {
    password: &'static str,
    binding: Vec<u8>,
    signature: Hash,
}

impl Client {
    pub(crate) fn new(password: &'static str, binding: Vec<u8>) -> Self {
        Self { password, binding, signature: Hash::default() }
    }

    pub(crate) fn first(&self) -> String {
        format!("{GS2}n=,r=of-the-client")
    }

    pub(crate) fn last(&mut self, server_first: &str) -> String {
        let salt = from_base64(field(server_first, "s="));
        let salted = salted(self.password, &salt, field(server_first, "i=").parse().unwrap());
        let header = base64(&[GS2.as_bytes(), &self.binding].concat());
        let without_proof = format!("c={header},r={}", field(server_first, "r="));
        let all = format!("n=,r=of-the-client,{server_first},{without_proof}");
        let key = hmac(&salted, b"Client Key");
        self.signature = hmac(&hmac(&salted, b"Server Key"), all.as_bytes());
        let proof = xor(&key, &hmac(&sha256(&key), all.as_bytes()));
        format!("{without_proof},p={}", base64(&proof))
    }

    /// Whether the server knows the password too.
    pub(crate) fn accepts(&self, server_last: &str) -> bool {
        from_base64(field(server_last, "v=")) == self.signature
    }
}

/// The server's side.
pub(crate) struct Server {
    salted: Hash,
    binding: Vec<u8>,
    so_far: String,
}

impl Server {
    pub(crate) fn new(password: &str, binding: Vec<u8>) -> Self {
        Self { salted: salted(password, b"salt", ITERATIONS), binding, so_far: String::new() }
    }

    pub(crate) fn first(&mut self, client_first: &str) -> String {
        let bare = client_first.strip_prefix(GS2).unwrap_or_else(|| panic!("{client_first}"));
        let nonce = field(bare, "r=");
        let answer = format!("r={nonce}of-the-server,s={},i={ITERATIONS}", base64(b"salt"));
        self.so_far = format!("{bare},{answer}");
        answer
    }

    /// The last message; `None` if the client has another channel binding.
    pub(crate) fn last(&self, client_last: &str) -> Option<String> {
        let (without_proof, proof) = client_last.rsplit_once(",p=").unwrap();
        if from_base64(field(without_proof, "c=")) != [GS2.as_bytes(), &self.binding].concat() {
            return None;
        }
        let all = format!("{},{without_proof}", self.so_far);
        let key = hmac(&self.salted, b"Client Key");
        let expected = xor(&key, &hmac(&sha256(&key), all.as_bytes()));
        assert_eq!(from_base64(proof), expected, "the password");
        Some(format!("v={}", base64(&hmac(&hmac(&self.salted, b"Server Key"), all.as_bytes()))))
    }
}
