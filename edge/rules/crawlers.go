package rules

import (
	"net/http"
	"slices"
	"strings"
)

// Classes of crawlers, for Match.Crawlers.
const (
	CrawlerAI     = "ai"     // collects texts and pictures for language models, or reads pages for their users
	CrawlerSearch = "search" // of a search engine
	CrawlerAny    = "any"    // these, and all others that say what they are
)

// crawlers has, by class, texts of which a crawler of the class has one in its User-Agent. They are
// in lower case. They come from the pages of the operators, and for the class ai from
// https://github.com/ai-robots-txt/ai.robots.txt (November 2026).
var crawlers = map[string][]string{
	CrawlerAI: {"ai2bot", "amazonbot", "anthropic-ai", "bytespider", "ccbot", "chatgpt-user", "claude-searchbot",
		"claude-user", "claude-web", "claudebot", "cohere-ai", "cohere-training-data-crawler", "deepseekbot", "diffbot",
		"duckassistbot", "facebookbot", "gptbot", "iaskspider", "icc-crawler", "imagesiftbot", "img2dataset",
		"kangaroo bot", "meta-externalagent", "meta-externalfetcher", "mistralai-user", "oai-searchbot", "omgili",
		"pangubot", "perplexity-user", "perplexitybot", "petalbot", "timpibot", "tiktokspider", "velenpublicwebcrawler",
		"webzio", "youbot"},
	CrawlerSearch: {"applebot", "baiduspider", "bingbot", "coccocbot", "duckduckbot", "googlebot", "googleother",
		"mojeekbot", "naver.me", "qwantbot", "qwantify", "seznambot", "slurp", "sogou", "yandex", "yeti/"},
	// "+http" begins the address that most crawlers have in their User-Agent.
	CrawlerAny: {"+http", "ahrefsbot", "barkrowler", "blexbot", "bot/", "bot;", "crawler", "dataforseobot", "dotbot",
		"facebookexternalhit", "mj12bot", "semrushbot", "serpstatbot", "spider", "telegrambot", "twitterbot"},
}

// CrawlerClasses returns the names of the classes.
func CrawlerClasses() []string { return []string{CrawlerAI, CrawlerSearch, CrawlerAny} }

// isCrawler reports whether a request says that it comes from a crawler of a class.
func isCrawler(class string, h http.Header) bool {
	agent := strings.ToLower(strings.Join(h["User-Agent"], " "))
	has := func(class string) bool {
		return slices.ContainsFunc(crawlers[class], func(name string) bool { return strings.Contains(agent, name) })
	}
	return has(class) || class == CrawlerAny && (has(CrawlerAI) || has(CrawlerSearch))
}
