//! stub
use super::{Engine, Param};
/// stub
pub fn inline(text: &str, _engine: Engine, _params: &[Param], _compact: bool) -> Result<String, std::fmt::Error> {
    Ok(text.to_owned())
}
