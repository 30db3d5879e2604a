//! The second engine. In the making.

use crate::error::{LabError, Result};
use crate::node::Node;

pub(crate) fn prepare(_node: &Node) -> Result<()> {
    Err(LabError::Missing("the stand-in is not written yet".to_owned()))
}

pub(crate) fn start(_node: &Node) -> Result<u32> {
    Err(LabError::Missing("the stand-in is not written yet".to_owned()))
}
