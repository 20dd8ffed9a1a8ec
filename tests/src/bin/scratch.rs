use e2e::client::*;
use e2e::dirs::RunDir;
use e2e::envoy::*;
use e2e::gateway::Gateway;
#[tokio::main]
async fn main() -> e2e::Result<()> {
    let g = Gateway::start()?;
    let mut c = EnvoyConfig::shipped(std::path::Path::new("/nope"))?;
    c.remove_http_filter("sluice")?;
    let r = c.routes().replace("              sluice:\n                \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig\n                disabled: true\n", "");
    c.set_routes(&r);
    c.set_cluster("gateway", g.address())?;
    c.set_cluster("sluice_authz", "127.0.0.1:1".parse().unwrap())?;
    let t = std::time::Instant::now();
    let mut e = Envoy::start_in(
        {
            let d = RunDir::new("x")?;
            d.keep();
            d
        },
        c,
    )?;
    println!("up {:?}", t.elapsed());
    for p in Protocol::BOTH {
        let mut cl = Client::connect(e.address(), p).await?;
        for beh in [
            "",
            "fail-500",
            "conflict-409",
            "reset",
            "reset-after-headers",
            "slow-50",
            "status-204",
        ] {
            let mut pay = Payment::new("m", "o1", 5);
            if !beh.is_empty() {
                pay = pay.gateway(beh);
            }
            let a = cl.send(pay.call().header("x-sluice-code", "x")).await;
            println!(
                "{p:?} {beh} {:?}",
                a.map(|a| (a.status, a.json().to_string())).map_err(|e| e.to_string())
            );
        }
        for path in [
            "/v1/open/payments",
            "/native/v1/payments",
            "/v1//open/payments",
            "/v1%2fpayments",
        ] {
            let a = cl
                .send(
                    Payment::new("m", "o2", 5)
                        .path(path)
                        .call()
                        .header("X-Sluice-Code", "x"),
                )
                .await;
            println!(
                "{p:?} {path} {:?}",
                a.map(|a| (a.status, a.json().to_string())).map_err(|e| e.to_string())
            );
        }
        let a = cl.send(Payment::new("m", "o3", 5).call().trailer("x-t", "1")).await;
        println!(
            "{p:?} trailers {:?}",
            a.map(|a| (a.status, a.json().to_string())).map_err(|e| e.to_string())
        );
        let a = cl
            .send(
                Payment::new("m", "o4", 5)
                    .call()
                    .part(Part::Pause(std::time::Duration::from_millis(50)))
                    .part(Part::Abort),
            )
            .await;
        println!(
            "{p:?} abort {:?}",
            a.map(|a| (a.status, a.json().to_string())).map_err(|e| e.to_string())
        );
    }
    for s in g.seen() {
        println!(
            "{} {} {:?} {:?}",
            s.method,
            s.path,
            s.order_no,
            s.headers.get("x-sluice-code")
        );
    }
    let t = std::time::Instant::now();
    let r = with_route(e.routes(), "payments", RouteState::Shadow)?;
    e.switch_routes(&r)?;
    println!("switched {:?}", t.elapsed());
    std::thread::sleep(std::time::Duration::from_millis(100));
    for l in e.access_log()? {
        println!("{l}");
    }
    Ok(())
}
