-- What `cargo xtask compare debezium` runs: every type with its edges, NULLs, changes of keys,
-- statements of many rows, transactions of several tables, DDL in between.

SET NAMES utf8mb4;
SET SESSION sql_mode = '';
SET SESSION time_zone = '+00:00';

CREATE TABLE numbers (
    id INT AUTO_INCREMENT PRIMARY KEY,
    t TINYINT, tu TINYINT UNSIGNED, flag BOOLEAN, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT,
    mu MEDIUMINT UNSIGNED, i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED,
    f FLOAT, d DOUBLE, n DECIMAL(10,2), big DECIMAL(65,30), whole DECIMAL(20,0),
    b1 BIT(1), b7 BIT(7), b33 BIT(33), b64 BIT(64), y YEAR);
INSERT INTO numbers VALUES
    (1, -128, 0, 0, -32768, 0, -8388608, 0, -2147483648, 0, -9223372036854775808, 0, -3.4028234e38,
     -1.7976931348623157e308, -99999999.99, -99999999999999999999999999999999999.999999999999999999999999999999,
     -99999999999999999999, b'0', b'0', b'0', b'0', 0),
    (2, 127, 255, 1, 32767, 65535, 8388607, 16777215, 2147483647, 4294967295, 9223372036854775807,
     18446744073709551615, 3.4028234e38, 1.7976931348623157e308, 99999999.99,
     99999999999999999999999999999999999.999999999999999999999999999999, 99999999999999999999, b'1', b'1111111',
     0x1ffffffff, 0xffffffffffffffff, 2155),
    (3, -1, 128, 2, -1, 32768, -1, 8388608, -1, 2147483648, -1, 9223372036854775808, 0.1, 0.1, 0.10, 0.1, 1,
     b'1', b'101', 0x12345678, 0x8000000000000000, 1901),
    (4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1970),
    (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL),
    (6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1.17549435e-38, 5e-324, -0.01, 0.000000000000000000000000000001, -1,
     b'0', b'1', 1, 1, 2024),
    (7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 16777217, 1e22, 1.5, -1, 128, b'1', b'1000000', 256, 65536, 2000);
UPDATE numbers SET i = i + 1 WHERE id IN (1, 3, 4);
UPDATE numbers SET t = NULL, n = NULL WHERE id = 2;
UPDATE numbers SET t = 1, n = 1.23 WHERE id = 5;
DELETE FROM numbers WHERE id = 4;

CREATE TABLE texts (
    id INT PRIMARY KEY, c CHAR(10), v VARCHAR(300), tt TINYTEXT, x TEXT, mt MEDIUMTEXT, lt LONGTEXT,
    latin VARCHAR(20) CHARACTER SET latin1, wide CHAR(10) CHARACTER SET utf16, old VARCHAR(20) CHARACTER SET utf8mb3,
    bin BINARY(8), vb VARBINARY(300), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB,
    e ENUM('small', 'it''s', 'größe'), st SET('a', 'b', 'c d'))  DEFAULT CHARSET utf8mb4;
INSERT INTO texts VALUES
    (1, 'abc', 'äöü €', 'tiny', 'Grüße 🦀', REPEAT('x', 300), 'long', 'café', 'wide', 'naïve', 'ab', x'00ff', x'01',
     x'', REPEAT('y', 300), x'ff00ff', 'small', 'a'),
    (2, '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', 'größe', ''),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (4, 'trail  ', 'trail  ', 'tab\there', 'line\nend', '"quoted"', '\\', 'ÿ', '漢字', '漢字', x'6162000000000000',
     x'6100', x'00', x'00', x'00', x'00', 'it''s', 'a,c d'),
    (5, '0', 'NULL', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0', 2, 7);
INSERT IGNORE INTO texts (id, e) VALUES (6, 'no member');
UPDATE texts SET x = CONCAT(x, '!'), e = 'small', st = 'b';
DELETE FROM texts WHERE id = 5;

CREATE TABLE times (
    id INT PRIMARY KEY, d DATE, t TIME, t3 TIME(3), t6 TIME(6), dt DATETIME, dt3 DATETIME(3), dt6 DATETIME(6),
    ts TIMESTAMP NULL, ts3 TIMESTAMP(3) NULL, ts6 TIMESTAMP(6) NULL);
INSERT INTO times VALUES
    (1, '2024-02-29', '12:34:56', '12:34:56.789', '12:34:56.789012', '2024-02-29 23:59:59',
     '2024-02-29 23:59:59.999', '2024-02-29 23:59:59.999999', '2024-02-29 23:59:59', '2024-02-29 23:59:59.999',
     '2024-02-29 23:59:59.999999'),
    (2, '1000-01-01', '-838:59:59', '-838:59:58.999', '-00:00:00.000001', '1000-01-01 00:00:00',
     '1000-01-01 00:00:00.001', '1000-01-01 00:00:00.000001', '1970-01-01 00:00:01', '1970-01-01 00:00:01.001',
     '1970-01-01 00:00:01.000001'),
    (3, '9999-12-31', '838:59:59', '838:59:58.999', '00:00:00.000001', '9999-12-31 23:59:59',
     '9999-12-31 23:59:59.999', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07', '2038-01-19 03:14:07.499',
     '2038-01-19 03:14:07.499999'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (5, '1969-12-31', '00:00:00', '00:00:00', '00:00:00', '1969-12-31 23:59:59', '1969-12-31 23:59:59.999',
     '1969-12-31 23:59:59.999999', '2001-09-09 01:46:40', '2001-09-09 01:46:40.5', '2001-09-09 01:46:40.000001');
INSERT INTO times (id, d, dt, dt3, dt6, ts, ts6) VALUES
    (6, '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00',
     '0000-00-00 00:00:00');
UPDATE times SET t = '01:02:03', dt = '2000-01-01 00:00:00' WHERE id IN (1, 4);
DELETE FROM times WHERE id = 5;

CREATE TABLE strict_times (id INT PRIMARY KEY, d DATE NOT NULL, dt DATETIME NOT NULL, ts TIMESTAMP NOT NULL);
INSERT INTO strict_times VALUES (1, '2024-01-01', '2024-01-01 00:00:00', '2024-01-01 00:00:00'),
    (2, '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00');

CREATE TABLE documents (id INT PRIMARY KEY, doc JSON, g GEOMETRY, p POINT, v VECTOR(3));
INSERT INTO documents VALUES
    (1, '{"a": 1, "b": [true, false, null], "text": "Grüße \\u0041 \\"q\\"", "n": -1.5, "o": {}}',
     ST_GeomFromText('LINESTRING(0 0, 1.5 2)'), ST_GeomFromText('POINT(1 2)', 4326), TO_VECTOR('[1, -2.5, 0]')),
    (2, '[]', ST_GeomFromText('POLYGON((0 0, 4 0, 4 4, 0 0))'), NULL, NULL),
    (3, NULL, NULL, NULL, NULL),
    (4, '"just text"', ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 1 1))'), NULL, NULL),
    (5, '12345678901234567890', NULL, NULL, NULL),
    (6, '{"deep": {"er": [1, [2, [3]]]}, "": "empty key"}', NULL, NULL, NULL);
UPDATE documents SET doc = JSON_SET(doc, '$.a', 2) WHERE id = 1;
UPDATE documents SET doc = 'null' WHERE id = 3;

-- Keys of several columns, in another order than the columns, that change.
CREATE TABLE keys_of_two (a INT, v VARCHAR(20), b VARCHAR(10), PRIMARY KEY (b, a));
INSERT INTO keys_of_two VALUES (1, 'one', 'x'), (2, 'two', 'x'), (1, 'three', 'y');
UPDATE keys_of_two SET a = a + 10 WHERE b = 'x' ORDER BY a DESC;
UPDATE keys_of_two SET v = 'changed' WHERE b = 'y';
UPDATE keys_of_two SET b = 'z', v = 'moved' WHERE b = 'y';
REPLACE INTO keys_of_two VALUES (11, 'replaced', 'x');
INSERT INTO keys_of_two VALUES (11, 'again', 'x') ON DUPLICATE KEY UPDATE v = 'duplicate';
DELETE FROM keys_of_two WHERE b = 'x';

-- Transactions of several statements and tables, one of them rolled back.
CREATE TABLE accounts (id BIGINT UNSIGNED PRIMARY KEY, owner VARCHAR(40) NOT NULL DEFAULT 'nobody',
    balance DECIMAL(12,2) NOT NULL DEFAULT 0, twice DECIMAL(13,2) AS (balance * 2) STORED,
    half DECIMAL(13,3) AS (balance / 2) VIRTUAL, hidden INT INVISIBLE DEFAULT 7);
CREATE TABLE movements (id BIGINT AUTO_INCREMENT PRIMARY KEY, account BIGINT UNSIGNED, amount DECIMAL(12,2),
    at TIMESTAMP(6) NOT NULL DEFAULT '2024-01-01 00:00:00');
BEGIN;
INSERT INTO accounts (id, owner, balance) VALUES (1, 'Ada', 100), (2, 'Grace', 50);
INSERT INTO movements (account, amount) VALUES (1, 100), (2, 50);
COMMIT;
BEGIN;
UPDATE accounts SET balance = balance - 25 WHERE id = 1;
UPDATE accounts SET balance = balance + 25 WHERE id = 2;
SAVEPOINT s;
DELETE FROM movements;
ROLLBACK TO s;
INSERT INTO movements (account, amount) VALUES (1, -25), (2, 25);
COMMIT;
BEGIN;
DELETE FROM accounts;
ROLLBACK;

-- Many rows, in more than one event.
INSERT INTO movements (account, amount)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i % 2 + 1, i / 100 FROM n;
UPDATE movements SET amount = -amount WHERE id % 3 = 0;
DELETE FROM movements WHERE id % 5 = 0;

-- DDL in between.
ALTER TABLE accounts ADD COLUMN note VARCHAR(50) DEFAULT 'new' AFTER owner;
INSERT INTO accounts (id, owner, balance) VALUES (3, 'Edsger', 1);
UPDATE accounts SET note = NULL WHERE id = 1;
ALTER TABLE accounts DROP COLUMN note, ADD COLUMN tag SET('a', 'b') NULL FIRST;
INSERT INTO accounts (id, owner, balance, tag) VALUES (18446744073709551615, 'last', 2, 'a,b');
ALTER TABLE accounts MODIFY balance DECIMAL(20,4) NOT NULL DEFAULT 0, RENAME COLUMN owner TO holder;
UPDATE accounts SET holder = CONCAT(holder, '!');
ALTER TABLE movements ADD INDEX (account), ALGORITHM = INPLACE;
DELETE FROM movements WHERE id < 10;
CREATE VIEW overview AS SELECT id, holder FROM accounts;
CREATE TABLE copied (PRIMARY KEY (id)) SELECT id, amount FROM movements WHERE id < 40;
UPDATE copied SET amount = 0 WHERE id < 20;
ALTER TABLE keys_of_two CONVERT TO CHARACTER SET utf8mb3;
INSERT INTO keys_of_two VALUES (5, 'späte', 'ö');

-- A table without a primary key has no place in Cassandra, and is not captured.
CREATE TABLE keyless (a INT, b INT);
INSERT INTO keyless VALUES (1, 2);
