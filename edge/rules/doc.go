// Package rules decides what a site does with a request before the cache sees it, and with the
// response before the client gets it.
//
// A site has an ordered list of rules. A rule has conditions and actions. It matches a request that
// meets all its conditions. Conditions see the request as the client sent it, so no rule depends on
// the changes of another rule. The actions of all matching rules are taken in this order:
//
//  1. Basic auth of every matching rule. A request that fails one gets 401.
//  2. The first rule that ends the request: deny, respond or redirect. Later rules are ignored.
//  3. Rewrite and each setting of the cache. If two rules have the same setting, the later one
//     counts.
//  4. Changes of request and response fields, rule by rule.
//
// An Outcome is the result. It has no reference to the request.
//
// [Set.Evaluate] needs the whole request. [Set.Static] is for the hit lane. It needs only the
// method, the target and the protocol, and reports false if a rule depends on more.
package rules
