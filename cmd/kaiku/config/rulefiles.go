package config

import "fmt"

// RuleFile is a file that a rule names. All of them are secret.
type RuleFile struct {
	Key  string // below the rule, such as basic_auth.file
	File string
	// check returns what is wrong with the file.
	check func(file string) error
}

// Files returns the files that a rule names.
func (r *Rule) Files() (files []RuleFile) {
	if r.BasicAuth != nil {
		files = append(files, RuleFile{"basic_auth.file", r.BasicAuth.File, checkUsers})
	}
	if r.Signed != nil {
		for i, file := range r.Signed.Keys {
			files = append(files, RuleFile{fmt.Sprintf("signed.keys[%d]", i), file, checkSigningKey})
		}
	}
	return files
}
