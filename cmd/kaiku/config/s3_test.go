package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const s3Fleet = `nodes: { e1: { roles: [edge], location: [60, 25], addresses: [192.0.2.1] } }
sites:
  - name: files
    hosts: [files.example.com]
    origin:
      servers: ["https://s3.example.net"]
`

// Each mistake in a bucket is told of where it stands.
func TestMistakesInBuckets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ lines, want string }{
		{"s3: { bucket: assets, region: auto, credentials: k }", ""},
		{"s3: { bucket: assets, region: auto, credentials: k, style: host, query: [versionId] }", ""},
		{"s3: { bucket: assets, region: auto, credentials: k }\n      health: { path: /up.txt }", ""},
		{"s3: { bucket: a/b, region: auto, credentials: k }", `7:13: sites[0].origin.s3.bucket: "a/b" is not the name`},
		{"s3: { bucket: assets, credentials: k }", `7:7: sites[0].origin.s3.region: "" is not a region`},
		{"s3: { bucket: assets, region: auto }", "7:7: sites[0].origin.s3.credentials: want a file with the lines"},
		{"s3: { bucket: assets, region: auto, credentials: k, style: dns }",
			`s3.style: "dns" is unknown: want path or host`},
		{"s3: { bucket: assets, region: auto, credentials: k, query: [acl] }",
			`s3.query[0]: "acl" can't be let through`},
		{"s3: { bucket: assets, region: auto, credentials: k, query: [versionID] }", "did you mean versionId?"},
		{"s3: { bucket: assets, region: auto, credentials: k }\n      host: client",
			"8:7: sites[0].origin.host: the server"},
		{"s3: { bucket: assets, region: auto, credentials: k, style: host }\n      host: s3.example.org",
			"origin.host: with s3.style host, the Host begins with the bucket: want assets.s3.example.org"},
		{"s3: { bucket: assets, region: auto, credentials: k }\n      health: { interval: 1s }",
			`origin.health.path: want the path of an object: a probe of "" would list the bucket`},
		{"s3: { bucket: assets, region: auto, credentials: k }\n      pass_fields: [X-Real-IP]",
			"origin.pass_fields: an S3"},
		{"s3: { bucket: assets, region: auto, credentials: k }\n      auth: { header: A, secret: k }",
			"leave auth out"},
	} {
		_, _, err := Load(writeFleet(t, s3Fleet+"      "+c.lines+"\n", ""))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n%v\nwant %s", c.lines, err, c.want)
		}
	}
	ip := strings.Replace(s3Fleet, "s3.example.net", "192.0.2.9", 1)
	_, _, err := Load(writeFleet(t, ip+"      s3: { bucket: b-1, region: auto, credentials: k, style: host }\n", ""))
	if err == nil || !strings.Contains(err.Error(), "6:17: sites[0].origin.servers[0]: with s3.style host") {
		t.Errorf("host style and an address: %v", err)
	}
}

func TestS3Keys(t *testing.T) {
	t.Parallel()
	const good = "[default]\naws_access_key_id = AKIA1\n# x\nregion = eu\naws_secret_access_key=s/e+c=\n"
	key, err := parseS3Key(good)
	if err != nil || key.KeyID != "AKIA1" || key.Secret != "s/e+c=" {
		t.Fatalf("%+v, %v", key, err)
	}
	for text, want := range map[string]string{
		"":                                   "want the lines",
		"aws_access_key_id = a":              "want the lines",
		"AKIAIOSFODNN7EXAMPLE":               "line 1: want NAME = VALUE",
		good + "[other]":                     "line 6: a second profile",
		good + "aws_access_key_id = b":       "line 6: this value stands here twice",
		"aws_access_key_id = a b":            "line 1: the value is empty, or",
		"aws_secret_access_key =\n":          "line 1: the value is empty, or",
		"aws_session_token = é\n" + good:     "line 1: the value is empty, or",
		"aws_access_key_id\n= AKIAIOSFODNN7": "line 1: want NAME = VALUE",
	} {
		if _, err := parseS3Key(text); err == nil || !strings.HasPrefix(err.Error(), want) ||
			strings.Contains(err.Error(), "AKIA") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(good), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readS3Key(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that everybody may read: %v", err)
	}
}

// kaiku check reports a bad file at its key.
func TestCheckOfS3Keys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "fleet.yaml")
	fleet := s3Fleet + "      s3: { bucket: assets, region: auto, credentials: assets.s3 }\n"
	writeAll(t, dir, map[string]string{"fleet.yaml": fleet, "assets.s3": "AKIA1:secret\n"})
	if told, failed := checked(t, config); !failed || !strings.Contains(told,
		"sites[0].origin.s3.credentials: DIR/assets.s3: line 1: want NAME = VALUE") {
		t.Errorf("a file of another form: %s", told)
	}
	writeAll(t, dir, map[string]string{"assets.s3": "aws_access_key_id = a\naws_secret_access_key = b\n"})
	if told, failed := checked(t, config); failed {
		t.Errorf("a good file: %s", told)
	}
	if err := os.Remove(filepath.Join(dir, "assets.s3")); err != nil {
		t.Fatal(err)
	}
	if told, failed := checked(t, config); !failed || !strings.Contains(told, "s3.credentials: there is no such file") {
		t.Errorf("no file: %s", told)
	}
}
