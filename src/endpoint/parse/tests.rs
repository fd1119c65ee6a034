mod good;
mod mistakes;
mod round_trip;

use super::{ClientEndpoint, EndpointKind, ServerEndpoint};

fn client(text: &str) -> ClientEndpoint {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn server(text: &str) -> ServerEndpoint {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}
