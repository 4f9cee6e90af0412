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
INSERT INTO "attempts" VALUES('7a835f2b-412b-4f69-94ea-602cc6c9e61b',1,'killed',1,1,'killed','f.py:killed','killed',NULL,'killed','11051a04-c10f-412c-a19a-d9ae42bb76b9','running',NULL,1796141763811152,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES('23e08147-fcdc-45b8-8799-87a815efc88d',2,'parked',1,1,'parked','f.py:parked','parked',NULL,'parked','11051a04-c10f-412c-a19a-d9ae42bb76b9','parked',NULL,1796141763864728,1796141763878754,1,'{"round":1,"platform":"https://develop.ivcap.net","account":"urn:ivcap:account:1","credentials":null,"waits":[{"urn":"urn:ivcap:order:waited","noun":"order","service":"urn:ivcap:service:s","name":null,"account":null}],"began_at":"2026-12-01T16:16:03.876333+00:00","wake_at":"2026-12-02T16:16:03.876333+00:00","enough":null}');
INSERT INTO "attempts" VALUES('aa950c93-812f-4e04-8b13-3e8d59236f43',3,'batch',1,1,'batch','f.py:batch','batch',NULL,'batch','11051a04-c10f-412c-a19a-d9ae42bb76b9','running',NULL,1796141763885421,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES('42991e4f-69ba-49a9-bdb8-7010f928e695',4,'ended',1,1,'ended','f.py:ended','ended',NULL,'ended','11051a04-c10f-412c-a19a-d9ae42bb76b9','completed',NULL,1796141763913719,1796141763916856,1,NULL);
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
INSERT INTO "deliveries" VALUES('ivcap','run','ended','pending','try later',1,1796141763876333,1796141763920837);
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
INSERT INTO "facts" VALUES(1,'killed','7a835f2b-412b-4f69-94ea-602cc6c9e61b',1796141763862189,'urn:example:0',NULL,NULL,'{"kind":"entity","id":"urn:example:0","type":"file"}','file',NULL);
INSERT INTO "facts" VALUES(2,'killed','7a835f2b-412b-4f69-94ea-602cc6c9e61b',1796141763862189,'urn:example:1',NULL,NULL,'{"kind":"entity","id":"urn:example:1","type":"file"}','file',NULL);
INSERT INTO "facts" VALUES(3,'killed','7a835f2b-412b-4f69-94ea-602cc6c9e61b',1796141763862189,'urn:example:2',NULL,NULL,'{"kind":"entity","id":"urn:example:2","type":"file"}','file',NULL);
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
INSERT INTO "intents" VALUES('k1:done','k1:done',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"done"}',NULL,NULL,'done',0,'killed','7a835f2b-412b-4f69-94ea-602cc6c9e61b',0,'done',1,NULL,NULL,1796141763816875,1796141763828782,1796141763824639,NULL,0,0,NULL,'urn:ivcap:order:done','{"urn":"urn:ivcap:order:done"}','sent',NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:sent','k1:sent',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"sent"}',NULL,NULL,'sent',0,'killed','7a835f2b-412b-4f69-94ea-602cc6c9e61b',0,'sent',1,'11051a04-c10f-412c-a19a-d9ae42bb76b9','997c9baf-192f-404f-ac3a-da8a425a3117',1796141763831128,1796141763836820,1796141763836622,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:announced','k1:announced',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"announced"}',NULL,NULL,'announced',0,'killed','7a835f2b-412b-4f69-94ea-602cc6c9e61b',0,'claimed',1,'11051a04-c10f-412c-a19a-d9ae42bb76b9','6f007781-ecdd-4c6f-a0b0-32341109380b',1796141763837467,1796141763837467,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:secret','k1:secret',0,'job','https://develop.ivcap.net','urn:ivcap:account:1','account','{"service":"s","parameters":{"password":"**********:ff15ad49655d9d4940d2b6c466b93f11"}}',NULL,NULL,NULL,0,NULL,NULL,0,'claimed',1,'11051a04-c10f-412c-a19a-d9ae42bb76b9','ade374eb-60ec-444c-8da3-082a49206769',1796141763840973,1796141763840973,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:waited','k1:waited',0,'order','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"waited"}',NULL,NULL,'waited',0,'parked','23e08147-fcdc-45b8-8799-87a815efc88d',0,'done',1,NULL,NULL,1796141763867355,1796141763872548,1796141763869236,NULL,0,0,NULL,'urn:ivcap:order:waited','{"urn":"urn:ivcap:order:waited"}','sent',NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:row-1','k1:row-1',0,'model run','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"row-1"}',NULL,NULL,'row-1',0,'batch','aa950c93-812f-4e04-8b13-3e8d59236f43',0,'done',1,NULL,NULL,1796141763887396,1796141763904713,1796141763888352,NULL,0,0,NULL,'urn:ivcap:model-run:row-1','{"urn":"urn:ivcap:model-run:row-1"}','sent',NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "intents" VALUES('k1:row-2','k1:row-2',0,'model run','https://develop.ivcap.net','urn:ivcap:account:1','run','{"n":"row-2"}',NULL,NULL,'row-2',0,'batch','aa950c93-812f-4e04-8b13-3e8d59236f43',0,'claimed',1,'11051a04-c10f-412c-a19a-d9ae42bb76b9','08d3f9c7-09c0-49cb-ba36-277793fe2fbf',1796141763908881,1796141763908881,NULL,NULL,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
CREATE TABLE journal_info (
	id TEXT NOT NULL, 
	version TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	key_check TEXT, 
	mark TEXT, 
	readable_from TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "journal_info" VALUES('724f4af9-c735-4cf6-b98c-63e5a3e56e13','1',1796141763792678,'014a84b0c10a1740af69a6ddaefb2ae3613aa21683d69e9c1b7b2e4286d9d1cb',NULL,'{"revision":1,"package":"0.1.0"}');
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
INSERT INTO "processes" VALUES('11051a04-c10f-412c-a19a-d9ae42bb76b9','gone',19797,1796055363876333,' 65024 2359606');
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
INSERT INTO "runs" VALUES('killed','killed',1,'killed','f.py:killed','f.py:killed','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'running',1796141763809731,1796141763809731,0);
INSERT INTO "runs" VALUES('parked','parked',2,'parked','f.py:parked','f.py:parked','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'parked',1796141763864361,1796141763878754,0);
INSERT INTO "runs" VALUES('batch','batch',3,'batch','f.py:batch','f.py:batch','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'running',1796141763885131,1796141763885131,0);
INSERT INTO "runs" VALUES('ended','ended',4,'ended','f.py:ended','f.py:ended','{}','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',NULL,0,NULL,'completed',1796141763913394,1796141763916856,0);
CREATE TABLE sendings (
	run_id TEXT NOT NULL, 
	sink TEXT NOT NULL, 
	sent_at BIGINT NOT NULL, 
	sent_platform_time BIGINT, 
	PRIMARY KEY (run_id, sink), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE INDEX runs_outcome ON runs (outcome, updated_at);
CREATE INDEX runs_identity ON runs (flow_name, code, parameters_sha256, seq);
CREATE INDEX runs_short_id ON runs (short_id);
CREATE INDEX runs_seq ON runs (seq);
CREATE INDEX runs_flow ON runs (flow_name, seq);
CREATE INDEX attempts_run ON attempts (run_id, number);
CREATE INDEX attempts_process ON attempts (process_id);
CREATE INDEX attempts_seq ON attempts (seq);
CREATE INDEX attempts_root_flow_run ON attempts (root_flow_run_id);
CREATE INDEX attempts_flow_run ON attempts (flow_run_id);
CREATE INDEX attempts_flow_run_name ON attempts (flow_run_name);
CREATE INDEX attempts_outcome ON attempts (outcome);
CREATE INDEX facts_run ON facts (run_id, seq);
CREATE INDEX facts_record_version ON facts (record_id, version) WHERE version IS NOT NULL;
CREATE INDEX facts_record ON facts (record_id, seq);
CREATE INDEX facts_source ON facts (source, seq);
CREATE INDEX facts_target ON facts (target, seq);
CREATE INDEX facts_version ON facts (version, record_id) WHERE version IS NOT NULL;
CREATE INDEX deliveries_run ON deliveries (run_id, sink);
CREATE INDEX deliveries_state ON deliveries (sink, state);
CREATE INDEX leases_process ON leases (process_id);
CREATE INDEX intents_run ON intents (run_id);
CREATE INDEX intents_state ON intents (state, noun);
CREATE INDEX intents_attempt ON intents (attempt_id);
CREATE INDEX intents_process ON intents (process_id) WHERE process_id IS NOT NULL;
CREATE INDEX intents_base_key ON intents (base_key, generation);
CREATE INDEX intents_urn ON intents (urn);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('facts',5);
COMMIT;
