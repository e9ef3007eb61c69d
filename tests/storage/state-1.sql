-- What the first version of the schema wrote.
PRAGMA application_id = 1162958146;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE leases (
            id TEXT PRIMARY KEY, agent TEXT NOT NULL, session TEXT NOT NULL, provider TEXT NOT NULL, profile TEXT NOT NULL,
            automatic INTEGER NOT NULL, delivery TEXT NOT NULL, asked REAL NOT NULL, issued_at REAL NOT NULL,
            expires_at REAL NOT NULL, max_expires_at REAL NOT NULL, expires_wall REAL NOT NULL, boot TEXT NOT NULL
        ) WITHOUT ROWID;
INSERT INTO "leases" VALUES('l1','main','talk','anthropic','anthropic:env',1,'raw',900.0,1000.0,1900.0,4600.0,1800000900.0,'this-boot');
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('digest_key',X'6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B6B');
CREATE TABLE orders (
            agent TEXT, provider TEXT, profiles TEXT NOT NULL, PRIMARY KEY (agent, provider)
        ) WITHOUT ROWID;
INSERT INTO "orders" VALUES('main','anthropic','["anthropic:env", "anthropic:b"]');
CREATE TABLE pins (
            agent TEXT, session TEXT, provider TEXT, profile TEXT NOT NULL, strict INTEGER NOT NULL,
            PRIMARY KEY (agent, session, provider)
        ) WITHOUT ROWID;
INSERT INTO "pins" VALUES('main','talk','anthropic','anthropic:env',1);
CREATE TABLE usage (
            agent TEXT, profile TEXT, last_used REAL NOT NULL, cooldown_until REAL NOT NULL, disabled_until REAL NOT NULL,
            disabled_reason TEXT NOT NULL, error_count INTEGER NOT NULL, failure_counts TEXT NOT NULL,
            last_failure REAL NOT NULL, rejected TEXT NOT NULL, rejected_version INTEGER NOT NULL,
            PRIMARY KEY (agent, profile)
        ) WITHOUT ROWID;
INSERT INTO "usage" VALUES('','anthropic:env',0.0,0.0,0.0,'',2,'{"rate_limit": 2}',1799999000.0,'',0);
CREATE TABLE versions (
            agent TEXT, profile TEXT, version INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (agent, profile)
        ) WITHOUT ROWID;
INSERT INTO "versions" VALUES('','anthropic:env',7,X'64646464646464646464646464646464');
COMMIT;
