//! The page of the admin listener.

use std::path::Path;

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::inside::Inside;
use crate::support::origin::{Origin, Reply};

const ADMIN: &str = "admin: { listen: 127.0.0.1:0 }\n";

/// Opens the dashboard of a Forebay that has answered 30 requests for seven URLs.
async fn opened(browser: &mut Browser) -> (Inside, Origin) {
    let origin = Origin::builder()
        .answering(|request| match request.target.as_str() {
            "/bad" => Reply::status(500),
            _ => Reply::fresh(600, "x".repeat(2_000))
                .field("Cache-Tag", "items")
                .field("Vary", "Accept-Language"),
        })
        .start()
        .await;
    let routes = "routes: [{ name: api, match: { path_prefix: /api }, upstream: default }, \
                  { name: few, match: { path_prefix: /few }, rate_limit: { requests: 1, per: 1d } }, { name: site, upstream: default }]\n";
    let proxy = Inside::before(&origin, &format!("{ADMIN}{routes}")).await;
    for number in 0..30 {
        proxy.get(&format!("/api/items/{}", number % 7)).await;
    }
    browser.open(&format!("http://{}/", proxy.admin_address())).await;
    browser.becomes(&figure("requests", "30")).await;
    (proxy, origin)
}

/// Whether a figure is this.
fn figure(name: &str, expected: &str) -> String {
    format!("document.querySelector('[data-figure=\"{name}\"]')?.textContent === '{expected}'")
}

fn text_of(id: &str) -> String {
    format!("document.getElementById('{id}').textContent")
}

/// Goes to an element with the Tab key alone.
async fn tab_to(browser: &mut Browser, id: &str) {
    for _ in 0..40 {
        browser.press("Tab").await;
        if browser.eval("document.activeElement.id").await == id {
            return;
        }
    }
    panic!("{id} cannot be reached by keyboard");
}

#[tokio::test]
async fn figures_are_live() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let (proxy, _origin) = opened(&mut browser).await;
    for (name, expected) in [("hit ratio", "76.7 %"), ("errors", "0 %"), ("stored", "7")] {
        assert_eq!(
            browser.eval(&figure(name, expected)).await,
            true,
            "{name} is {expected}"
        );
    }
    assert_eq!(
        browser
            .eval("document.querySelectorAll('.chart svg circle').length > 6")
            .await,
        true
    );
    let routes = browser.eval(&text_of("routes")).await;
    assert!(routes.as_str().unwrap().contains("api"), "{routes}");
    let upstreams = browser.eval(&text_of("upstreams")).await;
    assert!(upstreams.as_str().unwrap().contains("up"), "{upstreams}");
    // Without anybody touching the page.
    proxy.get("/bad").await;
    browser.becomes(&figure("requests", "31")).await;
    assert_eq!(
        browser.eval(&text_of("refused")).await,
        "clientlimitrequestsLimits have refused nobody."
    );
    for expected in [200, 429, 429] {
        assert_eq!(proxy.get("/few").await.status, expected);
    }
    browser
        .becomes(&format!(
            "{} === 'clientlimitrequests127.0.0.1few2'",
            text_of("refused")
        ))
        .await;
    browser
        .becomes("document.getElementById('top').textContent.includes('/api/items/6')")
        .await;
    // Servers are taken out and in by a button.
    for (label, state) in [("Drain", "drained"), ("Enable", "up")] {
        let click = format!("document.querySelector('#upstreams button[aria-label^={label}]').click()");
        browser.eval(&click).await;
        // Whoever holds a button keeps it as it is.
        browser.eval("document.activeElement.blur()").await;
        browser
            .becomes(&format!(
                "document.querySelector('#upstreams span').textContent === '{state}'"
            ))
            .await;
    }
    assert_eq!(browser.errors().await, [""; 0]);
}

#[tokio::test]
async fn what_is_purged_is_counted_first_all_by_keyboard() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let (proxy, origin) = opened(&mut browser).await;
    let fetched = origin.request_count();
    assert_eq!(
        browser.eval("document.getElementById('purge-now').disabled").await,
        true
    );
    tab_to(&mut browser, "name").await;
    browser.write("http://test/api/items/3").await;
    browser.press("Enter").await;
    browser
        .becomes(&format!("{} === '1 response would be purged.'", text_of("purged")))
        .await;
    proxy.get("/api/items/3").await;
    assert_eq!(origin.request_count(), fetched, "counting takes nothing out of use");
    tab_to(&mut browser, "purge-now").await;
    browser.press("Space").await;
    browser
        .becomes(&format!("{} === '1 response purged.'", text_of("purged")))
        .await;
    browser.becomes(&figure("stored", "6")).await;
    assert!(proxy.get("/api/items/3").await.cache_status().contains("fwd=uri-miss"));
    proxy.get("/api/items/2").await;
    assert_eq!(origin.request_count(), fetched + 1);
    // A name that is changed has to be counted again.
    let counted = "(() => { const at = (id) => document.getElementById(id); at('kind').value = 'tags'; at('name').value = 'items'; \
                   at('kind').dispatchEvent(new Event('input')); return at('purge-now').disabled; })()";
    assert_eq!(browser.eval(counted).await, true);
    browser.eval("document.getElementById('count').click()").await;
    browser
        .becomes(&format!("{} === '7 responses would be purged.'", text_of("purged")))
        .await;
    browser.eval("document.getElementById('purge-now').click()").await;
    browser
        .becomes(&format!("{}.startsWith('Purged')", text_of("purged")))
        .await;
    for number in 0..7 {
        let response = proxy.get(&format!("/api/items/{number}")).await;
        assert!(response.cache_status().contains("fwd="), "{}", response.cache_status());
    }
    assert_eq!(browser.errors().await, [""; 0]);
}

#[tokio::test]
async fn a_url_is_explained() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let (_proxy, _origin) = opened(&mut browser).await;
    tab_to(&mut browser, "url").await;
    browser.write("http://test/api/items/1").await;
    browser.press("Enter").await;
    browser
        .becomes(&format!("{}.includes('hit')", text_of("inspected")))
        .await;
    let variants = browser.eval(&text_of("variants")).await;
    assert!(
        variants.as_str().unwrap().contains("accept-language: absent"),
        "{variants}"
    );
    tab_to(&mut browser, "field").await;
    browser.write("Accept-Language: de").await;
    browser.press("Enter").await;
    browser
        .becomes(&format!("{}.includes('vary-miss')", text_of("inspected")))
        .await;
    // A URL that is none says so.
    browser.eval("document.getElementById('url').value = 'nonsense'").await;
    browser.eval("document.querySelector('#inspect button').click()").await;
    browser
        .becomes("document.getElementById('variants-region').hidden")
        .await;
    let said = browser.eval(&text_of("inspected")).await;
    assert_ne!(said, "");
    let errors = browser.errors().await;
    // The browser tells of the refused request; nothing else.
    assert!(errors.iter().all(|error| error.contains("400")), "{errors:?}");
}

#[tokio::test]
async fn it_fits_every_screen() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let (_proxy, _origin) = opened(&mut browser).await;
    let pictures = std::env::var_os("FOREBAY_PICTURES");
    let mut backgrounds = Vec::new();
    if pictures.is_some() {
        browser.eval(FIGURES).await;
    }
    for (width, height) in [(360, 780), (768, 1024), (1280, 900)] {
        for scheme in ["light", "dark"] {
            browser.looks_like(width, height, scheme).await;
            let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.eval(overflow).await, 0, "{width} {scheme}");
            let outside = "[...document.querySelectorAll('section, input, select, button, h2, dd')].filter((one) => \
                           !one.closest('.scroll') && one.getBoundingClientRect().right > innerWidth + 1).length";
            assert_eq!(browser.eval(outside).await, 0, "{width} {scheme}");
            // What stands in a chart is not distorted.
            browser
                .becomes("[...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('svg').viewBox.baseVal.width === chart.clientWidth)")
                .await;
            backgrounds.push(browser.eval("getComputedStyle(document.body).backgroundColor").await);
            let contrast = browser.eval(CONTRAST).await;
            assert!(contrast.as_f64().unwrap() >= 4.5, "{width} {scheme}: {contrast}");
            if let Some(directory) = &pictures {
                let name = format!("dashboard-{width}-{scheme}.png");
                browser.picture(&Path::new(directory).join(name)).await;
            }
        }
    }
    assert_ne!(backgrounds[0], backgrounds[1], "dark is dark");
    assert_eq!(browser.errors().await, [""; 0]);
}

/// Minutes of figures, for pictures.
const FIGURES: &str = r"(() => {
  for (let step = 0; step < 120; step++) {
    const wave = Math.sin(step / 9) + Math.sin(step / 31) + 3;
    charts.requests.add([wave * 120, step % 40 === 0 ? 14 : 1]);
    charts.hits.add([0.6 + wave / 20, 0.1, 0.02, 0.04]);
    charts.latency.add([0.0004, 0.0011 * wave, 0.002 * wave, 0.004 * wave]);
    charts.streams.add([Math.floor(wave * 9), Math.floor(wave * 3)]);
  }
})()";

/// The least contrast that any text has to what is behind it (WCAG 2.2 §1.4.3), of those that are not switched off.
const CONTRAST: &str = r"(() => {
  const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const behind = (one) => { for (let at = one; at; at = at.parentElement) { const color = parse(getComputedStyle(at).backgroundColor); if (color.length === 3 || color[3] === 1) return color; } return [255, 255, 255]; };
  let least = 21;
  for (const one of document.querySelectorAll('h1, h2, #state, dt, dd, th, td, li, label, button:enabled, select, output, td span')) {
    if (!one.textContent.trim() || !one.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))];
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
})()";

#[tokio::test]
async fn a_token_is_asked_for_and_kept_for_the_session() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let origin = Origin::builder().on("/a", Reply::fresh(60, "x")).start().await;
    let token = "0123456789abcdef-token";
    let yaml = format!("admin: {{ listen: 127.0.0.1:0, token: {} }}\n", json!(token));
    let proxy = Inside::before(&origin, &yaml).await;
    proxy.get("/a").await;
    browser.open(&format!("http://{}/", proxy.admin_address())).await;
    browser.becomes("!document.getElementById('locked').hidden").await;
    assert_eq!(
        browser.eval("document.querySelector('[data-figure]')").await,
        json!(null)
    );
    tab_to(&mut browser, "token").await;
    browser.write(token).await;
    browser.press("Enter").await;
    browser.becomes(&figure("requests", "1")).await;
    assert_eq!(browser.eval("document.getElementById('locked').hidden").await, true);
}
