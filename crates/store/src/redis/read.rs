//! Reading accounts, merchants, orders and waiting events as they are stored. Nothing is decided here.

use prost::Message;
use proto::journal::EventContext;
use quota::{Account, Currency, Merchant, MerchantId, Order, OrderNo};
use redis::Cmd;
use redis::streams::StreamRangeReply;
use tokio::time::Instant;

use super::{RedisStore, corrupt};
use crate::packed::{self, PackedError};
use crate::{StoreError, Use, keys};

impl RedisStore {
    /// The account as it is stored: windows that are over are still in it.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn account(&self, merchant: &MerchantId, currency: Currency) -> Result<Option<Account>, StoreError> {
        self.read(keys::account(self.shard(merchant), merchant, currency), packed::account).await
    }

    /// The account as it is stored, and its merchant's own state, by one read.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn account_of_merchant(
        &self,
        merchant: &MerchantId,
        currency: Currency,
    ) -> Result<(Option<Account>, Merchant), StoreError> {
        let (accounts, state) = self.accounts_of(merchant, &[currency]).await?;
        Ok((accounts.into_iter().next().map(|(_, account)| account), state))
    }

    /// All accounts of a merchant as they are stored, and the merchant's own state, by one read of every currency's key.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn accounts(&self, merchant: &MerchantId) -> Result<(Vec<(Currency, Account)>, Merchant), StoreError> {
        self.accounts_of(merchant, &Currency::all().collect::<Vec<_>>()).await
    }

    async fn accounts_of(
        &self,
        merchant: &MerchantId,
        currencies: &[Currency],
    ) -> Result<(Vec<(Currency, Account)>, Merchant), StoreError> {
        let shard = self.shard(merchant);
        let accounts = currencies.iter().map(|currency| keys::account(shard, merchant, *currency));
        let keys: Vec<String> = accounts.chain([keys::merchant(shard, merchant)]).collect();
        let mut values: Vec<Option<Vec<u8>>> = self.query(&Cmd::mget(keys)).await?;
        let state = values.pop().flatten().as_deref().map(packed::merchant).transpose().map_err(corrupt)?;
        let found = currencies.iter().zip(values).filter_map(|(currency, value)| Some((*currency, value?)));
        let account = |(currency, value): (_, Vec<u8>)| packed::account(&value).map(|account| (currency, account));
        let accounts = found.map(account).collect::<Result<_, _>>().map_err(corrupt)?;
        Ok((accounts, state.unwrap_or_default()))
    }

    /// The merchant's own state: whether it is suspended as a whole. `None` where it never was.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn merchant(&self, merchant: &MerchantId) -> Result<Option<Merchant>, StoreError> {
        self.read(keys::merchant(self.shard(merchant), merchant), packed::merchant).await
    }

    /// The order as it is stored.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn order(&self, merchant: &MerchantId, order_no: &OrderNo) -> Result<Option<Order>, StoreError> {
        self.read(keys::order(self.shard(merchant), merchant, Some(order_no)), packed::order).await
    }

    async fn read<T>(&self, key: String, decode: fn(&[u8]) -> Result<T, PackedError>) -> Result<Option<T>, StoreError> {
        let began = Instant::now();
        let bytes: Result<Option<Vec<u8>>, StoreError> = self.query(&Cmd::get(key)).await;
        self.metrics.took(Use::Read, began.elapsed());
        let bytes = bytes?;
        bytes.as_deref().map(decode).transpose().map_err(corrupt)
    }

    /// The context of the oldest event of a merchant's shard that waits for the journal: all older ones are in Postgres.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn oldest_waiting(&self, merchant: &MerchantId) -> Result<Option<EventContext>, StoreError> {
        let key = keys::stream(self.shard(merchant));
        let found: StreamRangeReply = self.query(&Cmd::xrange_count(key, "-", "+", 1)).await?;
        let Some(entry) = found.ids.into_iter().next() else { return Ok(None) };
        let context: Option<Vec<u8>> = entry.get("c");
        let context = context.ok_or_else(|| corrupt("an event without a context"))?;
        EventContext::decode(context.as_slice()).map(Some).map_err(corrupt)
    }
}
