//! ast-grep's `Doc` and `SgNode` over the compact tree.
//!
//! Unmodified ast-grep then matches on preorder arrays, with the same results as on tree-sitter's
//! nodes: same kind ids, same children, same texts. Where tree-sitter's own navigation is odd, so
//! is this one, since answers must be equal: [`CompactNode::next`] and [`CompactNode::next_all`]
//! pass over empty siblings, as tree-sitter's search by byte position does.

use crate::lang::Lang;
use ast_grep_core::Position;
use ast_grep_core::source::{Content, Doc, Edit, SgNode};
use astscope_syntax::{FieldId, Language, LineIndex, Node, ParsedFile, ParsedTree, node::Children};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// One tree of a parsed file: the host's or an injected one.
#[derive(Clone, Debug)]
pub struct CompactDoc {
    file: Arc<ParsedFile>,
    /// Which injection; `None` for the host tree.
    injection: Option<usize>,
    lang: Lang,
    source: SourceText,
    /// Made when somebody asks for a line.
    lines: Arc<OnceLock<LineIndex<Arc<str>>>>,
}

impl CompactDoc {
    /// The tree of the whole file.
    pub fn host(file: Arc<ParsedFile>) -> Self {
        let (lang, source) = (Lang(file.language), SourceText(Arc::clone(&file.text)));
        Self { file, injection: None, lang, source, lines: Arc::default() }
    }

    /// The host tree and all injected ones, in the order in which ast-grep searches them.
    pub fn all(file: &Arc<ParsedFile>) -> impl Iterator<Item = Self> {
        let host = Self::host(Arc::clone(file));
        let injections = file.injections.iter().enumerate().map({
            let host = host.clone();
            move |(at, (language, _))| Self {
                injection: Some(at),
                lang: Lang(*language),
                ..host.clone()
            }
        });
        std::iter::once(host).chain(injections)
    }

    /// The language of this tree.
    pub fn language(&self) -> Language {
        self.lang.0
    }

    /// The file that the tree belongs to.
    pub fn file(&self) -> &Arc<ParsedFile> {
        &self.file
    }

    /// The tree and its kinds.
    pub fn parsed(&self) -> &ParsedTree {
        match self.injection {
            None => &self.file.tree,
            Some(at) => &self.file.injections[at].1,
        }
    }

    /// Lines of the file's text.
    pub fn lines(&self) -> &LineIndex<Arc<str>> {
        self.lines.get_or_init(|| LineIndex::new(Arc::clone(&self.file.text)))
    }

    /// A node of this tree for ast-grep.
    pub fn node(&self, node: astscope_syntax::NodeId) -> CompactNode<'_> {
        CompactNode { doc: self, node: self.parsed().tree.node(node) }
    }
}

impl Doc for CompactDoc {
    type Source = SourceText;
    type Lang = Lang;
    type Node<'r> = CompactNode<'r>;

    fn get_lang(&self) -> &Lang {
        &self.lang
    }

    fn get_source(&self) -> &SourceText {
        &self.source
    }

    /// Trees are immutable: edits are applied to text, and the text is parsed anew.
    fn do_edit(&mut self, _: &Edit<SourceText>) -> Result<(), String> {
        Err("a compact tree is read-only".to_owned())
    }

    fn root_node(&self) -> CompactNode<'_> {
        self.node(0)
    }

    fn get_node_text<'a>(&'a self, node: &CompactNode<'a>) -> Cow<'a, str> {
        let range = node.node.range().to_usize();
        match self.file.text.get(range.clone()) {
            Some(text) => Cow::Borrowed(text),
            // A grammar that cuts a character in two must not cost more than a wrong letter.
            None => String::from_utf8_lossy(&self.file.text.as_bytes()[range]),
        }
    }
}

/// A file's text as ast-grep's content: UTF-8 bytes.
#[derive(Clone, Debug)]
pub struct SourceText(Arc<str>);

impl Content for SourceText {
    type Underlying = u8;

    fn get_range(&self, range: Range<usize>) -> &[u8] {
        &self.0.as_bytes()[range]
    }

    fn decode_str(source: &str) -> Cow<'_, [u8]> {
        Cow::Borrowed(source.as_bytes())
    }

    fn encode_bytes(bytes: &[u8]) -> Cow<'_, str> {
        String::from_utf8_lossy(bytes)
    }

    /// Asked only by `range` rules; what we print comes from a [`LineIndex`].
    fn get_char_column(&self, byte_column: usize, offset: usize) -> usize {
        let line = &self.0.as_bytes()[offset - byte_column..offset];
        line.iter().filter(|&&byte| byte & 0b1100_0000 != 0b1000_0000).count()
    }
}

/// A node of a [`CompactDoc`].
#[derive(Clone, Copy, Debug)]
pub struct CompactNode<'r> {
    doc: &'r CompactDoc,
    node: Node<'r>,
}

impl<'r> CompactNode<'r> {
    fn with(self, node: Node<'r>) -> Self {
        Self { node, ..self }
    }

    fn position(self, offset: u32) -> Position {
        let (line, column) = self.doc.lines().byte_point(offset);
        Position::new(line as usize, column as usize, offset as usize)
    }

    /// Where tree-sitter's cursor lands that is sent to this node by its start byte: at the first
    /// child of the parent that ends behind it. That is this node, unless it is empty.
    fn landing(self) -> Option<Node<'r>> {
        let start = self.node.range().start;
        match self.node.parent() {
            Some(_) if !self.node.range().is_empty() => Some(self.node),
            // The root has no parent; ast-grep then looks among its children.
            parent => {
                parent.unwrap_or(self.node).children().find(|child| child.range().end > start)
            }
        }
    }
}

impl<'r> SgNode<'r> for CompactNode<'r> {
    fn parent(&self) -> Option<Self> {
        self.node.parent().map(|node| self.with(node))
    }

    fn children(&self) -> impl ExactSizeIterator<Item = Self> {
        DocChildren { doc: self.doc, children: self.node.children() }
    }

    fn kind(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.node.kind())
    }

    fn kind_id(&self) -> u16 {
        self.node.kind_id()
    }

    fn node_id(&self) -> usize {
        self.node.id() as usize
    }

    fn range(&self) -> Range<usize> {
        self.node.range().to_usize()
    }

    fn start_pos(&self) -> Position {
        self.position(self.node.range().start)
    }

    fn end_pos(&self) -> Position {
        self.position(self.node.range().end)
    }

    // The default runs root-first; `stopBy` relies on tree-sitter's order.
    fn ancestors(&self, _root: Self) -> impl Iterator<Item = Self> {
        let this = *self;
        self.node.ancestors().map(move |node| this.with(node))
    }

    fn dfs(&self) -> impl Iterator<Item = Self> {
        let this = *self;
        self.node.subtree().map(move |node| this.with(node))
    }

    fn next(&self) -> Option<Self> {
        let end = self.node.range().end;
        let mut later = std::iter::successors(self.node.next_sibling(), |node| node.next_sibling());
        later.find(|node| node.range().end > end).map(|node| self.with(node))
    }

    fn prev(&self) -> Option<Self> {
        self.node.previous_sibling().map(|node| self.with(node))
    }

    fn next_all(&self) -> impl Iterator<Item = Self> {
        let this = *self;
        let first = self.landing().and_then(Node::next_sibling);
        std::iter::successors(first, |node| node.next_sibling()).map(move |node| this.with(node))
    }

    fn prev_all(&self) -> impl Iterator<Item = Self> {
        let this = *self;
        let first = self.landing().and_then(Node::previous_sibling);
        std::iter::successors(first, |node| node.previous_sibling())
            .map(move |node| this.with(node))
    }

    // The default says yes.
    fn is_named(&self) -> bool {
        self.node.is_named()
    }

    fn is_named_leaf(&self) -> bool {
        self.node.is_named_leaf()
    }

    fn is_leaf(&self) -> bool {
        self.node.is_leaf()
    }

    fn is_missing(&self) -> bool {
        self.node.is_missing()
    }

    fn is_error(&self) -> bool {
        self.node.is_error()
    }

    fn is_extra(&self) -> bool {
        self.node.is_extra()
    }

    fn field(&self, name: &str) -> Option<Self> {
        self.node.child_by_field(name).map(|node| self.with(node))
    }

    fn field_children(&self, field: Option<u16>) -> impl Iterator<Item = Self> {
        let this = *self;
        let field =
            field.and_then(|field| FieldId::try_from(field).ok()).filter(|&field| field != 0);
        let children = self.node.children();
        children
            .filter(move |child| Some(child.field_id()) == field)
            .map(move |node| this.with(node))
    }

    fn child_by_field_id(&self, field: u16) -> Option<Self> {
        let field = FieldId::try_from(field).ok().filter(|&field| field != 0)?;
        self.node.child_by_field_id(field).map(|node| self.with(node))
    }
}

struct DocChildren<'r> {
    doc: &'r CompactDoc,
    children: Children<'r>,
}

impl<'r> Iterator for DocChildren<'r> {
    type Item = CompactNode<'r>;

    fn next(&mut self) -> Option<CompactNode<'r>> {
        let doc = self.doc;
        self.children.next().map(|node| CompactNode { doc, node })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.children.size_hint()
    }
}

impl ExactSizeIterator for DocChildren<'_> {}
