//! s
pub(crate) fn trials(_: &std::sync::Arc<tests::harness::Settings>) -> Vec<libtest_mimic::Trial> {
    vec![]
}
