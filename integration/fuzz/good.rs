//! Good texts for every parser, from which the near ones are made.

/// Selectors.
pub(crate) const SELECTORS: [&str; 8] = [
    "",
    "zone=eu-1",
    "a==b,c!=d",
    "x in (a,b,c),y notin (d)",
    "!gpu,example.com/role",
    "n>4,n<9",
    "zone in (),role",
    "a in (x,y), !b , c notin(z),d=,e",
];

/// `nodes/<node>/label`
pub(crate) const LABELS: [&str; 3] = [
    r#"{"v":1,"id":"edge-7","instance":"0b7e","boot":"5f1c","run":"a91c","temporary":{"ip":"192.0.2.17","port":49311},"variables":{"zone":"eu-1","role":"web","gpu":"2"},"description":"video cache","since":"2026-01-01T00:00:00Z","ports":["http","metrics"],"want":{"addresses":["10.20.4.17"],"ports":{"http":8080}},"holding":{"generation":812,"addresses":["10.20.4.17"],"ports":{"http":30412}},"ephemeral":false,"annotations":{"serial":"free text"}}"#,
    r#"{"v":1,"id":"edge-7","instance":"i","boot":"b","run":"r","temporary":{"ip":"fd00::1","port":1},"variables":{},"ports":["main"]}"#,
    r#"{"v":1,"id":"edge-7","instance":"i","boot":"b","run":"r","temporary":{"ip":"192.0.2.1","port":1},"variables":{"pool":"a"},"description":"","ports":[],"ephemeral":true}"#,
];

/// `nodes/<node>/status`
pub(crate) const STATUSES: [&str; 2] = [
    r#"{"v":1,"instance":"0b7e","boot":"5f1c","run":"a91c","phase":"registered","generation":812,"message":"","refused":[]}"#,
    r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"failed","generation":3,"message":"why","refused":[{"ip":"10.0.0.1","port":80}]}"#,
];

/// `nodes/<node>/assignment`
pub(crate) const ASSIGNMENTS: [&str; 3] = [
    r#"{"v":1,"node":"edge-7","instance":"0b7e","state":"bound","pool":"eu","domain":"default","sharing":"exclusive","addresses":["10.20.4.17"],"ports":{"http":30412,"metrics":30413},"generation":812,"asked":"9f86d081884c7d65","hold_s":600,"cooldown_s":60,"on_isolation":"keep","leaving":[]}"#,
    r#"{"v":1,"node":"edge-7","instance":"77aa","state":"waiting","reason":"pool-full","message":"pool eu is full","generation":930,"asked":"60303ae22b998861"}"#,
    r#"{"v":1,"node":"edge-7","instance":"i","state":"bound","pool":"eu","domain":"d","sharing":"shared","addresses":["10.0.0.1","fd00::1"],"ports":{"main":8000},"generation":9,"asked":"9f86d081884c7d65","hold_s":1,"cooldown_s":0,"on_isolation":"withdraw","leaving":[{"generation":8,"pool":"eu","domain":"d","sharing":"shared","hold_s":1,"cooldown_s":0,"on_isolation":"keep","addresses":["10.0.0.2"],"ports":{"main":8001}}]}"#,
];

/// `claims/<domain>/<ip>[/<port>]`
pub(crate) const CLAIMS: [&str; 2] = [
    r#"{"v":1,"node":"edge-7","state":"bound","pool":"eu"}"#,
    r#"{"v":1,"node":"edge-7","instance":"0b7e","state":"cooling","pool":"eu","since":"2026-01-01T00:00:00Z"}"#,
];

/// `nodes/<node>/hold`
pub(crate) const HOLDS: [&str; 2] = [
    r#"{"v":1,"state":"held","extended":false,"hold_s":600,"since":"2026-01-01T00:00:00Z"}"#,
    r#"{"v":1,"state":"seen","extended":true,"hold_s":1,"since":""}"#,
];

/// `pools/<pool>`
pub(crate) const POOLS: [&str; 3] = [
    r#"{"v":1,"kind":"Pool","name":"eu","domain":"default","cidrs":["10.20.0.0/16","fd00:20::/64"],"exclude":["10.20.0.0/24","10.20.1.5"],"ports":"30000-32767","sharing":"exclusive","selector":"zone=eu-1","priority":10,"reserve":{"edge-7":"10.20.9.9"},"hold":"10m","cooldown":"60s","on_mismatch":"keep","on_isolation":"keep"}"#,
    r#"{"v":1,"kind":"Pool","name":"eu","sharing":"host","ports":"8000-8009"}"#,
    r#"{"v":1,"kind":"Pool","name":"eu","cidrs":["fd00::/127"],"sharing":"shared","ports":"1-1"}"#,
];

/// `groups/<group>`
pub(crate) const GROUPS: [&str; 2] = [
    r#"{"v":1,"kind":"Group","name":"web","selector":"role=web,zone in (eu-1,eu-2)","keyed_by":["zone"],"port":"http"}"#,
    r#"{"v":1,"kind":"Group","name":"web","selector":""}"#,
];

/// `manager/…` and `roles/…`
pub(crate) const MANAGED: [&str; 4] = [
    r#"{"v":1,"source":"default","cluster":"1f","revision":12,"partial":{"to":13,"part":1},"left_out":["nodes/a/label"]}"#,
    r#"{"v":1,"group":"web/zone=eu-1","selector":"role=web","members":3,"published":2,"condition":{"state":"frozen","message":"why"},"revision":12}"#,
    r#"{"v":1,"node":"edge-7","addresses":["10.20.4.17"],"ports":{"http":30412},"state":"ready","published":true}"#,
    r#"{"v":1,"identity":"host/1","version":"0.1.0","revision":12,"lag":0,"brake":"","last_pass":"","findings":0}"#,
];

/// Documents as operators write them.
pub(crate) const DOCUMENTS: [&str; 4] = [
    "kind: Pool\nname: eu\ndomain: default # same address may exist once per domain\ncidrs: [10.20.0.0/16, \"fd00:20::/64\"]\nexclude: [10.20.0.0/24, 10.20.1.5]\nports: 30000-32767\nsharing: exclusive\nselector: zone=eu-1\npriority: 10\nreserve: {edge-7: 10.20.9.9}\nhold: 10m\ncooldown: 60s\non_mismatch: move\nmove_at_once: 10%\non_isolation: keep\n---\nkind: Group\nname: web\nselector: role=web,zone in (eu-1,eu-2)\nkeyed_by: [zone]\nport: http\n",
    "kind: Group\nname: &a web\nselector: |\n  role=web\n---\nkind: Group\nname: b\nselector: >-\n  a,\n  b\n",
    r#"[{"kind":"Pool","name":"eu","cidrs":["10.0.0.0/8"]},{"kind":"Group","name":"g","selector":"a"}]"#,
    r#"{"kind":"Group","name":"g","selector":"a"} {"kind":"Group","name":"h","selector":""}"#,
];

/// Keys.
pub(crate) const KEYS: [&str; 17] = [
    "/enlist/nodes/edge-7/label",
    "/enlist/nodes/edge-7/status",
    "/enlist/nodes/edge-7/assignment",
    "/enlist/nodes/edge-7/hold",
    "/enlist/nodes/edge-7/hold/clock",
    "/enlist/claims/default/10.20.4.17",
    "/enlist/claims/default/10.20.4.17/30412",
    "/enlist/claims/default/fd00:20::1/1",
    "/enlist/pools/eu",
    "/enlist/groups/web",
    "/enlist/brakes/allocator",
    "/enlist/applied/site-a/pools",
    "/enlist/roles/relay",
    "/enlist/leaders/manager/694d7a1b2c3d4e5f",
    "/enlist/manager/nodes/edge-7/label",
    "/enlist/manager/groups/web%2Fzone=eu-1/members/edge-7",
    "/enlist/manager/checkpoint",
];
