BEGIN TRANSACTION;
CREATE TABLE accounts (
	run_id TEXT NOT NULL, 
	credentials TEXT NOT NULL, 
	platform TEXT NOT NULL, 
	account TEXT NOT NULL, 
	PRIMARY KEY (run_id, credentials), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE TABLE attempts (
	id TEXT NOT NULL, 
	seq BIGINT NOT NULL, 
	run_id TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	leads BOOLEAN NOT NULL, 
	flow_name TEXT NOT NULL, 
	entry_point TEXT NOT NULL, 
	flow_run_id TEXT NOT NULL, 
	flow_run_name TEXT, 
	root_flow_run_id TEXT NOT NULL, 
	process_id TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	cause TEXT, 
	started_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	newest_at_end INTEGER, 
	park TEXT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE, 
	FOREIGN KEY(process_id) REFERENCES processes (id)
);
INSERT INTO "attempts" VALUES('38c74f87-d456-4ccc-8521-047dfcb35173',1,'killed',1,1,'killed','f.py:killed','killed',NULL,'killed','5cd6f34f-04f9-4dab-80d1-2a610af0e15a','running',NULL,1796141769794976,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES('c6bc0c53-5dfe-4766-b75d-0a135e8ed25f',2,'parked',1,1,'parked','f.py:parked','parked',NULL,'parked','5cd6f34f-04f9-4dab-80d1-2a610af0e15a','parked',NULL,1796141769994252,1796141770041062,1,'{"round":1,"platform":"https://develop.ivcap.net","account":"urn:ivcap:account:1","credentials":null,"waits":[{"urn":"urn:ivcap:order:waited","noun":"order","service":"urn:ivcap:service:s","name":null,"account":null}],"began_at":"2026-12-01T16:16:10.030305+00:00","wake_at":"2026-12-02T16:16:10.030305+00:00"}');
INSERT INTO "attempts" VALUES('52218c20-abc6-4747-b217-dbcc2b70a524',3,'batch',1,1,'batch','f.py:batch','batch',NULL,'batch','5cd6f34f-04f9-4dab-80d1-2a610af0e15a','running',NULL,1796141770068312,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES('bcfa3044-14cc-4a8d-bc2b-7ff97f633d0a',4,'ended',1,1,'ended','f.py:ended','ended',NULL,'ended','5cd6f34f-04f9-4dab-80d1-2a610af0e15a','completed',NULL,1796141770100005,1796141770107480,1,NULL);
CREATE TABLE cursors (
	sink TEXT NOT NULL, 
	seq BIGINT NOT NULL, 
	behind TEXT NOT NULL, 
	PRIMARY KEY (sink)
);
INSERT INTO "cursors" VALUES('ivcap',5,'[]');
CREATE TABLE deliveries (
	sink TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	run_id TEXT, 
	state TEXT NOT NULL, 
	reason TEXT, 
	tries INTEGER NOT NULL, 
	next_try BIGINT, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (sink, "key"), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "deliveries" VALUES('ivcap','run','ended','pending','try later',1,1796141770030305,1796141770116846);
CREATE TABLE facts (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id TEXT NOT NULL, 
	attempt_id TEXT, 
	recorded_at BIGINT NOT NULL, 
	record_id TEXT NOT NULL, 
	source TEXT, 
	target TEXT, 
	record TEXT NOT NULL, 
	type TEXT, 
	version TEXT, 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "facts" VALUES(1,'killed','38c74f87-d456-4ccc-8521-047dfcb35173',1796141769988852,'urn:example:0',NULL,NULL,'{"kind":"entity","id":"urn:example:0","type":"file"}','file',NULL);
INSERT INTO "facts" VALUES(2,'killed','38c74f87-d456-4ccc-8521-047dfcb35173',1796141769988852,'urn:example:1',NULL,NULL,'{"kind":"entity","id":"urn:example:1","type":"file"}','file',NULL);
INSERT INTO "facts" VALUES(3,'killed','38c74f87-d456-4ccc-8521-047dfcb35173',1796141769988852,'urn:example:2',NULL,NULL,'{"kind":"entity","id":"urn:example:2","type":"file"}','file',NULL);
CREATE TABLE files (
	path TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	ctime_ns BIGINT NOT NULL, 
	inode TEXT NOT NULL, 
	device TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	PRIMARY KEY (path)
);
CREATE TABLE intents (
	"key" TEXT NOT NULL, 
	base_key TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	noun TEXT NOT NULL, 
	platform TEXT NOT NULL, 
	account TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	request TEXT NOT NULL, 
	discriminator TEXT, 
	subject TEXT, 
	name TEXT, 
	spends BOOLEAN NOT NULL, 
	run_id TEXT, 
	attempt_id TEXT, 
	asked_attempt INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	fence BIGINT NOT NULL, 
	process_id TEXT, 
	token TEXT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	sent_at BIGINT, 
	platform_time BIGINT, 
	lingering BOOLEAN NOT NULL, 
	sent_again BOOLEAN NOT NULL, 
	progress TEXT, 
	urn TEXT, 
	outcome TEXT, 
	how TEXT, 
	matched_by TEXT, 
	status TEXT, 
	error TEXT, 
	duplicates TEXT NOT NULL, 
	definition TEXT, 
	reuse TEXT, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE SET NULL, 
	FOREIGN KEY(attempt_id) REFERENCES attempts (id) ON DELETE SET NULL, 
	FOREIGN KEY(process_id) REFERENCES processes (id)
);
INSERT INTO "intents" VALUES('k1:done','k1:done',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"done"}',NULL,NULL,'done',0,'killed','38c74f87-d456-4ccc-8521-047dfcb35173',0,'done',1,NULL,NULL,1796141769850098,1796141769887224,1796141769867333,NULL,0,0,NULL,'urn:ivcap:order:done','{"urn":"urn:ivcap:order:done"}','sent',NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:sent','k1:sent',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"sent"}',NULL,NULL,'sent',0,'killed','38c74f87-d456-4ccc-8521-047dfcb35173',0,'sent',1,'5cd6f34f-04f9-4dab-80d1-2a610af0e15a','23c62d24-fa0b-45ee-a909-473d838428fb',1796141769896612,1796141769905415,1796141769905106,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:announced','k1:announced',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"announced"}',NULL,NULL,'announced',0,'killed','38c74f87-d456-4ccc-8521-047dfcb35173',0,'claimed',1,'5cd6f34f-04f9-4dab-80d1-2a610af0e15a','81c38a60-d322-4cd9-9837-50bc7c5d5594',1796141769912515,1796141769912515,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:secret','k1:secret',0,'job','https://develop.ivcap.net','urn:ivcap:account:1','account','{"service":"s","parameters":{"password":"**********:e00c623b34bbe9f44f23b4e5dbf60a02"}}',NULL,NULL,NULL,0,NULL,NULL,0,'claimed',1,'5cd6f34f-04f9-4dab-80d1-2a610af0e15a','10375dfb-05aa-401b-a3ac-708c799af731',1796141769938736,1796141769938736,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:waited','k1:waited',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"waited"}',NULL,NULL,'waited',0,'parked','c6bc0c53-5dfe-4766-b75d-0a135e8ed25f',0,'done',1,NULL,NULL,1796141770012645,1796141770025227,1796141770019165,NULL,0,0,NULL,'urn:ivcap:order:waited','{"urn":"urn:ivcap:order:waited"}','sent',NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:row-1','k1:row-1',0,'model run','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"row-1"}',NULL,NULL,'row-1',0,'batch','52218c20-abc6-4747-b217-dbcc2b70a524',0,'done',1,NULL,NULL,1796141770080309,1796141770087540,1796141770084635,NULL,0,0,NULL,'urn:ivcap:model-run:row-1','{"urn":"urn:ivcap:model-run:row-1"}','sent',NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:row-2','k1:row-2',0,'model run','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"row-2"}',NULL,NULL,'row-2',0,'batch','52218c20-abc6-4747-b217-dbcc2b70a524',0,'claimed',1,'5cd6f34f-04f9-4dab-80d1-2a610af0e15a','5c8a8a27-a31f-4a7b-8456-ecf726886fbe',1796141770094294,1796141770094294,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
CREATE TABLE journal_info (
	id TEXT NOT NULL, 
	version TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	key_check TEXT, 
	move TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "journal_info" VALUES('89cb3701-a1bd-4204-8837-85ea9087b8d2','390b3954fa9c',1796141769626338,'2a876d2c481f5007a61a72f90c27668ddfbd2d3766a75ba7b351a4520022d4dc',NULL);
CREATE TABLE leases (
	name TEXT NOT NULL, 
	process_id TEXT NOT NULL, 
	token TEXT NOT NULL, 
	taken_at BIGINT NOT NULL, 
	PRIMARY KEY (name), 
	FOREIGN KEY(process_id) REFERENCES processes (id)
);
CREATE TABLE once (
	run_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	PRIMARY KEY (run_id, name), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE TABLE polls (
	watchlist TEXT NOT NULL, 
	begun BIGINT NOT NULL, 
	ended BIGINT NOT NULL, 
	wanted TEXT NOT NULL, 
	PRIMARY KEY (watchlist)
);
CREATE TABLE processes (
	id TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid BIGINT NOT NULL, 
	heartbeat_at BIGINT NOT NULL, 
	lock TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "processes" VALUES('5cd6f34f-04f9-4dab-80d1-2a610af0e15a','gone',19900,1796055370030305,' 65024 2366096');
CREATE TABLE redaction_keys (
	journal_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	PRIMARY KEY (journal_id)
);
CREATE TABLE runs (
	id TEXT NOT NULL, 
	short_id TEXT NOT NULL, 
	seq BIGINT NOT NULL, 
	flow_name TEXT NOT NULL, 
	entry_point TEXT NOT NULL, 
	code TEXT NOT NULL, 
	parameters TEXT NOT NULL, 
	parameters_sha256 TEXT NOT NULL, 
	given_sha256 TEXT, 
	deployed BOOLEAN NOT NULL, 
	deployment_id TEXT, 
	outcome TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	missing_facts BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES('killed','killed',1,'killed','f.py:killed','f.py:killed','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'running',1796141769783513,1796141769783513,0);
INSERT INTO "runs" VALUES('parked','parked',2,'parked','f.py:parked','f.py:parked','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'parked',1796141769993779,1796141770041062,0);
INSERT INTO "runs" VALUES('batch','batch',3,'batch','f.py:batch','f.py:batch','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'running',1796141770067677,1796141770067677,0);
INSERT INTO "runs" VALUES('ended','ended',4,'ended','f.py:ended','f.py:ended','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'completed',1796141770097701,1796141770107480,0);
CREATE TABLE sendings (
	run_id TEXT NOT NULL, 
	sink TEXT NOT NULL, 
	sent_at BIGINT NOT NULL, 
	sent_platform_time BIGINT, 
	PRIMARY KEY (run_id, sink), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE INDEX runs_identity ON runs (flow_name, code, parameters_sha256, seq);
CREATE INDEX runs_outcome ON runs (outcome, updated_at);
CREATE INDEX runs_short_id ON runs (short_id);
CREATE INDEX runs_seq ON runs (seq);
CREATE INDEX runs_flow ON runs (flow_name, seq);
CREATE INDEX attempts_flow_run_name ON attempts (flow_run_name);
CREATE INDEX attempts_outcome ON attempts (outcome);
CREATE INDEX attempts_run ON attempts (run_id, number);
CREATE INDEX attempts_process ON attempts (process_id);
CREATE INDEX attempts_seq ON attempts (seq);
CREATE INDEX attempts_root_flow_run ON attempts (root_flow_run_id);
CREATE INDEX attempts_flow_run ON attempts (flow_run_id);
CREATE INDEX facts_target ON facts (target, seq);
CREATE INDEX facts_version ON facts (version, record_id) WHERE version IS NOT NULL;
CREATE INDEX facts_run ON facts (run_id, seq);
CREATE INDEX facts_record_version ON facts (record_id, version) WHERE version IS NOT NULL;
CREATE INDEX facts_record ON facts (record_id, seq);
CREATE INDEX facts_source ON facts (source, seq);
CREATE INDEX deliveries_run ON deliveries (run_id, sink);
CREATE INDEX deliveries_state ON deliveries (sink, state);
CREATE INDEX leases_process ON leases (process_id);
CREATE INDEX intents_process ON intents (process_id) WHERE process_id IS NOT NULL;
CREATE INDEX intents_urn ON intents (urn);
CREATE INDEX intents_state ON intents (state, noun);
CREATE INDEX intents_base_key ON intents (base_key, generation);
CREATE INDEX intents_run ON intents (run_id);
CREATE INDEX intents_attempt ON intents (attempt_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('facts',5);
COMMIT;
