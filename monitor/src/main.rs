//! scratch
fn main() {
    tracing_subscriber::fmt().with_env_filter("info,monitor=trace").init();
    let t = std::time::Instant::now();
    let c = match std::env::args().nth(1).as_deref() {
        Some("trampoline") => monitor::attach::AttachChoice::Trampoline,
        Some("tracepoint") => monitor::attach::AttachChoice::Tracepoint,
        _ => monitor::attach::AttachChoice::Auto,
    };
    match monitor::attach::attach(c, false, 4 << 20) {
        Ok(mut a) => {
            println!("{:?} {:?}", t.elapsed(), a.mode);
            for p in &a.probes {
                println!("{p:?}");
            }
            let mut r = a.take_ring().unwrap();
            for _ in 0..50 {
                std::thread::sleep(std::time::Duration::from_millis(100));
                let mut n = 0;
                while let Some(i) = r.next() {
                    n += 1;
                    if n < 20 {
                        println!("{} {:?}", u16::from_ne_bytes([i[2], i[3]]), i.len());
                    }
                }
            }
        }
        Err(e) => println!("ERR {e}"),
    }
}
