//! scratch
use astscope_synchronization::{WalkSpec, Synchronizer};
use astscope_repository::Repository;
use std::sync::Arc; use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let root = std::path::PathBuf::from(&a[1]).canonicalize().unwrap();
    let langs = a.get(2).map(|l| vec![l.parse().unwrap()]);
    let spec = WalkSpec { languages: langs, ..WalkSpec::all_of(&root) };
    if a.len() > 3 {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().build().unwrap());
        let s = Synchronizer::new(Arc::new(Repository::new(1)), root, pool);
        for _ in 0..4 {
            let t = Instant::now();
            let w = astscope_synchronization::walk::walk(&spec, &|| false).unwrap();
            let tw = t.elapsed(); let t = Instant::now();
            let sc = s.refresh(&spec, true, &|| false, &|_, _| {}).unwrap();
            eprintln!("walk {} {:?} refresh {:?} files {} skipped {}", w.files.len(), tw, t.elapsed(), sc.files.len(), sc.skipped.len());
        }
    } else {
        let w = astscope_synchronization::walk::walk(&spec, &|| false).unwrap();
        for f in w.files { if f.stat.size > 0 { println!("{}", f.display); } }
    }
}
