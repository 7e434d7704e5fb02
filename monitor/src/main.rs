//! scratch
fn main(){ tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("info").init();
 let mut s=monitor::config::Settings::default(); let a:Vec<String>=std::env::args().collect();
 let mut i=1; while i<a.len(){ match a[i].as_str(){ "run"=>{}, "--rules"=>{i+=1;s.rules.push(a[i].clone().into())} "--attach"=>{i+=1; s.attach=match a[i].as_str(){"trampoline"=>monitor::config::AttachChoice::Trampoline,"tracepoint"=>monitor::config::AttachChoice::Tracepoint,_=>monitor::config::AttachChoice::Auto}} "-o"=>{i+=1; s.output=Some(if a[i]=="json"{monitor::config::OutputFormat::Json}else{monitor::config::OutputFormat::Text})} "--alert-file"=>{i+=1;s.alert_file=Some(a[i].clone().into())} "--listen"=>{i+=1;s.listen=a[i].parse().unwrap()} "--ring-bytes"=>{i+=1;s.ring_bytes=a[i].parse().unwrap()} x=>panic!("{x}") } i+=1; }
 if let Err(e)=monitor::daemon::run(s){ eprintln!("{e}"); std::process::exit(2) } }
