// Package rules decides what a site does with a request before the cache sees it, and with the
// response before the client gets it.
//
// A site has an ordered list of rules. A rule has conditions, all of which a request has to meet,
// and actions. Conditions look at the request as the client sent it, so that no rule depends on
// what another one changed. The actions of all rules that match are taken, in this order:
//
//  1. Basic auth of every rule that matches. A request that fails one gets 401.
//  2. The first rule that ends the request: deny, respond or redirect. Later rules are not looked
//     at.
//  3. Rewrite and each setting of the cache: of two rules that give the same, the later one counts.
//  4. Changes of request and response fields, rule by rule.
//
// An Outcome is what comes of it. It holds no reference to the request.
//
// [Set.Evaluate] needs the whole request. [Set.Static] is for the hit lane: it needs the method,
// the target and the protocol, and reports that it can't tell where a rule depends on more.
package rules
