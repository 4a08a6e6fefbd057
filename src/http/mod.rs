//! The HTTP side: routes, guard, raw files, HLS, the API and the player page. The only room that names axum.

pub mod assets;
